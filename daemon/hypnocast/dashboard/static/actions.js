// Commands: asked for, confirmed where they end something, sent with an id of their own, answered.

import { by, say } from "./dom.js";
import { post } from "./post.js";
import { atSiteTime, hm } from "./words.js";

const WORDS = {
  lights_off: { title: "Lights off", words: "Lights went off", at: true },
  lights_on: { title: "Lights on", words: "Lights came on", at: true },
  note: { title: "Note", words: "", text: true, at: true },
  start_session: { title: "Start session", subject: true },
  end_session: { title: "End session" },
  accept_stream: { title: "Accept stream" },
};

/** Wire the buttons of a bed; `now()` gives its room. */
export function actions(bed, now) {
  const dialog = by("dialog");
  const form = by("dialog-form");
  let command = null;

  by("actions").addEventListener("click", (event) => {
    const name = event.target.closest("button")?.dataset.command;
    if (name) ask(name);
  });

  by("quick").addEventListener("click", (event) => {
    const text = event.target.closest("button")?.textContent;
    if (text) void order({ command: "note", session: now().card.session ?? "", text }, `Note “${text}”`);
  });

  function ask(name) {
    command = name;
    const { title, words = "", subject, text, at } = WORDS[name];
    const session = now().card.session;
    form.reset();
    say(by("dialog-title"), title);
    say(by("dialog-words"),
      name === "start_session" ? (session && now().card.mood !== "ended" ? `A session runs (${session}). Starting the next one ends it.` : "A new night begins for the next person.")
      : name === "end_session" ? `The session ${session ?? ""} ends; its last page is withheld.`
      : name === "accept_stream" ? "The streams of this bed come from another place than before in this session. Say that this is the lab's own doing: they are read."
      : words && `${words} now, or at the time you give.`);
    by("dialog-subject").hidden = !subject;
    by("dialog-text").hidden = !text;
    form.elements.text.required = Boolean(text);
    by("dialog-at").hidden = !at;
    say(by("dialog-do"), title);
    dialog.showModal();
    (text ? form.elements.text : subject ? form.elements.subject : by("dialog-do")).focus();
  }

  // Enter in a field means the act, not the first button of the form, which is Cancel.
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target instanceof HTMLInputElement) {
      event.preventDefault();
      by("dialog-do").click();
    }
  });

  dialog.addEventListener("close", () => {
    if (dialog.returnValue !== "do") return;
    dialog.returnValue = "";
    const fields = new FormData(form);
    const body = { command };
    if (command === "start_session") body.subject = fields.get("subject") || null;
    else body.session = now().card.session ?? "";
    if (command === "note") body.text = fields.get("text");
    if (WORDS[command].at && fields.get("at")) body.at = lastTime(fields.get("at"));
    void order(body, WORDS[command].title);
  });

  async function order(body, title) {
    announce(`${title}: sent, waiting for the daemon …`, false);
    const reply = await send(bed, body);
    announce(reply.ok ? `${title}: done, ${hm(new Date())} (request ${reply.request.slice(0, 8)})` : `${title} failed: ${reply.error}`, !reply.ok);
  }

  function announce(words, failed) {
    const line = by("reply");
    line.classList.toggle("failed", failed);
    say(line, words);
  }
}

/** Send a command with an id of its own; the answer always has ok, error and the request. */
export async function send(bed, body) {
  const request = crypto.randomUUID();
  return { ok: false, error: null, request, ...await post(bed, "command", { ...body, request }) };
}

/** The last time at which a clock showed this: 23:50 given at 00:10 was yesterday. */
function lastTime(clock) {
  const [hours, minutes, seconds = 0] = clock.split(":").map(Number);
  const when = atSiteTime(hours, minutes, seconds, new Date());
  if (when.getTime() > Date.now() + 60_000) when.setDate(when.getDate() - 1);
  return when.toISOString();
}
