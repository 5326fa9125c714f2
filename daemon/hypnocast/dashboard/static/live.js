// The stream of events from the server, and the truth about how old the page is.
//
// Heals by itself: the browser's own reconnection where it works, a new stream where it gave up
// or where nothing has come for a while.

import { by, el, say, mark } from "./dom.js";
import { hm, lasting, useZone } from "./words.js";

const SILENT_MS = 6500;
const BROKEN_MS = 1500;
const REOPEN_MS = 9000;

/**
 * Listen to `url`; `handlers` maps kinds of events to functions of their data. `onAge(old)` is
 * called whenever what the page shows becomes old or fresh.
 */
export function listen(url, handlers, onAge = () => {}) {
  const state = { source: null, beat: performance.now(), opened: 0, broken: null, pulse: null, skew: 0, old: null, version: null };

  function open() {
    state.source?.close();
    state.opened = performance.now();
    const source = new EventSource(url);
    state.source = source;
    source.addEventListener("pulse", (event) => pulse(JSON.parse(event.data)));
    for (const [kind, handle] of Object.entries(handlers)) {
      source.addEventListener(kind, (event) => {
        state.beat = performance.now();
        handle(JSON.parse(event.data));
      });
    }
    source.onopen = () => (state.broken = null);
    source.onerror = () => {
      state.broken ??= performance.now();
      if (source.readyState === EventSource.CLOSED) void mayLook();
    };
  }

  function pulse(pulsed) {
    state.beat = performance.now();
    state.pulse = pulsed;
    state.skew = pulsed.now * 1000 - Date.now();
    state.version ??= pulsed.version;
    useZone(pulsed.timezone);
    say(by("site"), `${pulsed.site.split("/").at(-1)} · ${pulsed.timezone}`);
    check();
  }

  function check() {
    const silent = performance.now() - state.beat;
    const broken = state.broken !== null && performance.now() - state.broken > BROKEN_MS;
    const lost = broken || silent > SILENT_MS;
    const alarms = [];
    if (lost) {
      alarms.push(`No contact with the server for ${lasting(silent / 1000)}. What you see is old.`);
      if (performance.now() - state.opened > REOPEN_MS) open();
    } else if (state.pulse && !state.pulse.broker.connected) {
      const since = new Date(state.pulse.broker.since * 1000);
      alarms.push(`No contact with the broker since ${hm(since)} (${state.pulse.broker.problem}). What you see is old.`);
    }
    if (state.pulse?.refused) {
      alarms.push(`${state.pulse.refused} messages broke the contract and were not shown; the last: ${state.pulse.refusal}`);
    }
    if (state.pulse && state.pulse.version !== state.version) {
      alarms.push("The server has a new version. Load this page again when it suits you.");
    }
    show(alarms);
    const old = lost || !state.pulse?.broker.connected;
    const waiting = state.pulse === null && !lost;
    mark(by("link"), "data-state", waiting ? "wait" : old ? "bad" : "good");
    say(by("link-words"), waiting ? "connecting" : old ? "not live" : "live");
    document.body.classList.toggle("old", old);
    if (old !== state.old) onAge((state.old = old));
    say(by("clock"), hm(new Date(now())));
  }

  const now = () => Date.now() + state.skew;
  open();
  setInterval(check, 1000);
  return { now };
}

function show(alarms) {
  const box = by("alerts");
  while (box.children.length > alarms.length) box.lastChild.remove();
  alarms.forEach((text, place) => {
    if (!box.children[place]) box.append(el("p", { class: "alarm" }, el("span")));
    say(box.children[place].firstChild, text);
  });
}

/** Go to the login where the server wants one. */
async function mayLook() {
  const answer = await fetch("/api/session").catch(() => null);
  if (answer?.status === 401) location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
}

/** The buttons every page has: light or dark, and logging out. */
export function prepare(onTheme = () => {}) {
  const button = by("theme");
  const root = document.documentElement;
  const name = () => say(button, root.dataset.theme === "light" ? "Dark" : "Light");
  button.addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "light" ? "dark" : "light";
    try {
      localStorage.setItem("theme", root.dataset.theme);
    } catch {
      // Then it holds for this page only.
    }
    name();
    onTheme();
  });
  name();
  void (async () => {
    const session = await fetch("/api/session").then((answer) => answer.json()).catch(() => null);
    if (!session?.login) return;
    const out = by("logout");
    out.hidden = false;
    out.title = `Logged in as ${session.user}`;
    out.addEventListener("click", async () => {
      const { csrf } = await (await fetch("/api/session")).json();
      await fetch("/api/logout", { method: "POST", headers: { "x-csrf-token": csrf } });
      location.assign("/login");
    });
  })();
}
