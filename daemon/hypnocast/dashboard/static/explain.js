// What a page's stage rests on: sent by the daemon page by page, or asked for.

import { send } from "./actions.js";
import { by, el, mark, say } from "./dom.js";
import { bar } from "./page.js";

/** Shows explanations of a bed's pages; `now()` gives its room, `panel` the page looked at. */
export function explanations(bed, now, panel) {
  const box = by("explanation");
  const ask = by("explain");
  const where = by("where");
  /** Of the session shown, by epoch: what came once need not be asked again. */
  let explanations = new Map();
  let session = null;
  let shown = "";

  /** Take what the room says, and show what is known of the page looked at. */
  function show() {
    const room = now();
    if (!room) return;
    if (room.card.session !== session) {
      session = room.card.session;
      explanations = new Map();
    }
    const news = room.explanation;
    if (news && news.session === session) explanations.set(news.epoch, news);
    draw(false);
  }

  function draw(asked) {
    const epoch = panel.epoch();
    const known = explanations.get(epoch) ?? null;
    const staged = panel.staged();
    const covered = Object.keys(known?.channels ?? {}).length;
    ask.hidden = !staged || covered > 0;
    where.hidden = !staged || !known?.patches;
    const key = `${session} ${epoch} ${staged && known !== null} ${covered}`;
    if (key === shown) return;
    shown = key;
    veil(null);
    // News of every page would be read aloud all night; an answer is.
    mark(box, "aria-live", asked ? "polite" : "off");
    if (!staged || !known) return box.replaceChildren();
    const bars = Object.entries(known.channels).sort(([, a], [, b]) => b - a)
      .map(([role, fall]) => bar(role, fall, false, `fill-${known.stage}`));
    box.replaceChildren(el("p", { class: "sentence" }, known.sentence));
    if (known.rationale && known.rationale !== known.sentence) box.append(el("p", {}, known.rationale));
    if (known.rules?.length) box.append(el("p", {}, `Rules: ${known.rules.join(", ")}`));
    if (covered) {
      box.append(el("ul", { class: "shares", "aria-label": `How much of ${known.stage} each channel carries` }, ...bars));
    }
    if (asked && known.patches) veil(known.patches);
  }

  ask.addEventListener("click", async () => {
    const epoch = panel.epoch();
    const room = session;
    mark(box, "aria-live", "polite");
    box.replaceChildren(el("p", {}, "Asking the daemon …"));
    const reply = await send(bed, { command: "explain", session: session ?? "", epoch });
    if (room !== session) return;
    if (reply.ok && reply.explanation) explanations.set(epoch, reply.explanation);
    if (epoch !== panel.epoch()) return;
    if (explanations.has(epoch)) draw(true);
    else box.replaceChildren(el("p", {}, reply.error ?? "The daemon gave no explanation."));
  });

  where.addEventListener("click", () => {
    const patches = explanations.get(panel.epoch())?.patches ?? null;
    veil(by("heat").hidden ? patches : null);
  });

  /** A veil over the page that is thick where the stage rests; null takes it off. */
  function veil(patches) {
    const canvas = by("heat");
    mark(where, "aria-pressed", String(patches !== null));
    say(where, patches === null ? "Show where" : "Hide where");
    canvas.hidden = patches === null;
    if (patches === null) return;
    canvas.height = patches.length;
    canvas.width = patches[0].length;
    const most = Math.max(...patches.flat(), 1e-9);
    const ctx = canvas.getContext("2d");
    patches.forEach((row, y) => row.forEach((fall, x) => {
      ctx.fillStyle = `rgb(255 138 92 / ${(0.75 * Math.max(0, fall)) / most})`;
      ctx.fillRect(x, y, 1, 1);
    }));
  }

  return { show };
}
