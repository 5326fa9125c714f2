// Taking a bed that nobody serves any more off the screens: asked for, confirmed, answered.

import { by, say } from "./dom.js";
import { post } from "./post.js";
import { bedName } from "./words.js";

/** Return what asks about a bed, and clears it once that was confirmed. */
export function retiring() {
  const dialog = by("dialog");
  const button = by("dialog-do");
  let bed = null;

  by("dialog-cancel").addEventListener("click", () => dialog.close());
  button.addEventListener("click", async () => {
    button.disabled = true;
    say(by("reply"), "Asking the broker …");
    const { error } = await post(bed, "retire", {});
    button.disabled = false;
    if (error) say(by("reply"), `Not retired: ${error}`);
    else dialog.close();
  });

  return (asked) => {
    bed = asked;
    say(by("dialog-title"), `Retire ${bedName(bed)}?`);
    say(by("reply"), "");
    dialog.showModal();
    by("dialog-cancel").focus();
  };
}
