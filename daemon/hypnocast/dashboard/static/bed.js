// One bed: what it does now, its night, its pages, and what one can do for it.

import { actions } from "./actions.js";
import { by, el, mark, say } from "./dom.js";
import { explanations } from "./explain.js";
import { listen, prepare } from "./live.js";
import { showBeside } from "./beside.js";
import { legend, nightCharts, table } from "./night.js";
import { pagePanel, showShares } from "./page.js";
import { movingTraces } from "./traces.js";
import { LEVELS, bedName, gearWords, hm, lasting, metWords, percent } from "./words.js";

const bed = decodeURIComponent(location.pathname.split("/").at(-1));
const OLD_S = 90;
let room = null;

say(by("name"), bedName(bed));
document.title = `${bedName(bed)} · Hypnocast`;
by("legend").append(...legend());

let spectrum = null;
const charts = nightCharts((epoch) => panel.select(epoch));
const panel = pagePanel(bed, () => {
  drawNight();
  why.show();
});
const why = explanations(bed, () => room, panel);
actions(bed, () => room);
prepare(() => charts.repaint());
const live = listen(`/api/bed/${encodeURIComponent(bed)}/live`, {
  room: show,
  spectrum: (next) => {
    spectrum = next;
    drawNight();
  },
  traces: (seconds) => traces.add(seconds),
  gone: () => say(by("empty"), `The broker has nothing of ${bedName(bed)}.`),
});
const traces = movingTraces(() => live.now());
setInterval(() => room && second(room.card), 1000);

function show(next) {
  // A night that says the same is kept, so that it is not drawn anew at every word of the bed.
  if (room?.night && next.night && room.night.at === next.night.at && room.night.epochs === next.night.epochs) next.night = room.night;
  room = next;
  by("empty").hidden = true;
  by("room").hidden = false;
  const { card, night } = room;
  mark(by("now"), "data-mood", card.mood);
  headline(card);
  showShares(by("shares"), room.stage?.session === card.session ? room.stage?.probabilities : null);
  say(by("met"), metWords(card));
  by("met").hidden = !card.notice;
  facts(room);
  electrodes(card);
  gear(card);
  statistics(night?.statistics ?? null);
  marks(night);
  notice(card);
  for (const button of by("actions").children) {
    button.disabled = button.dataset.command !== "start_session" && (!card.session || card.mood === "ended");
  }
  for (const button of by("quick").children) button.disabled = !card.session || card.mood === "ended";
  panel.show(room);
  why.show();
  drawNight();
}

function drawNight() {
  if (!room?.night) return;
  charts.show(room.night, panel.epoch(), spectrum);
  showBeside(by("beside"), room.night, room.beside, (epoch) => panel.select(epoch));
  const details = document.querySelector(".table-of-night");
  if (details.open) by("runs").replaceChildren(table(room.night));
}
document.querySelector(".table-of-night").addEventListener("toggle", drawNight);

function headline(card) {
  const letter = by("letter");
  letter.className = card.mood === "staged" ? `letter stage-${card.stage}` : card.mood === "withheld" ? "letter" : "letter none";
  const ran = card.since ? `since ${hm(card.since)} · ${lasting(card.lasted_s)}` : "";
  const sure = card.confidence === null ? "" : `${percent(card.confidence)} sure`;
  const [banner, sign, first, third] = {
    staged: ["", card.stage, card.since ? `since ${hm(card.since)}` : "", `${sure}${card.provisional ? ", provisional" : ""}${card.review ? ", review" : ""}`],
    withheld: ["WITHHELD", "?", card.reason_words ?? "no stage", ran],
    stale: ["SILENT", "–", "no signal", card.stage ? `last ${card.stage}` : ""],
    ended: ["ENDED", "■", "night over", card.recent_end ? `at ${hm(card.recent_end)}` : ""],
    waiting: ["", "·", "waiting", card.session ? "for the first page" : "for a session"],
    warming_up: ["", "·", "warming up", ""],
    not_staging: ["", "·", card.phase ?? "no session", "not staging"],
  }[card.mood];
  say(by("banner"), banner);
  say(letter, sign);
  say(by("first"), first);
  say(by("third"), third);
  say(by("subject"), card.subject ?? "");
  second(card);
}

function second(card) {
  const line = by("second");
  const silent = live.now() / 1000 - card.seen;
  const old = silent > OLD_S && card.mood !== "ended";
  by("now").classList.toggle("old", old);
  if (card.node_available === false && card.mood !== "ended") say(line, `its daemon (${card.node}) is offline`);
  else if (old) say(line, `no news for ${lasting(silent)}`);
  else say(line, card.mood === "staged" ? `for ${lasting(card.lasted_s)}` : "");
}

function facts({ card, status, stage }) {
  const known = (...parts) => parts.filter(Boolean).join(" · ");
  const lines = [
    known(card.lights === "unknown" ? null : `lights ${card.lights}`,
      card.latency_ms === null ? null : `latency ${(card.latency_ms / 1000).toFixed(1)} s`),
    known(status?.pack, stage?.provider && `on ${stage.provider}`),
    card.session ? `session ${card.session}` : "no session",
  ].filter(Boolean);
  const list = by("facts");
  while (list.children.length > lines.length) list.lastChild.remove();
  lines.forEach((line, place) => say(list.children[place] ?? list.appendChild(el("li")), line));
}

function electrodes(card) {
  const list = by("electrodes");
  const key = JSON.stringify([card.electrodes, card.problems, card.judged]);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...card.electrodes.map((lead) => el("li", { "data-level": lead.level },
    el("span", { class: "shape", "aria-hidden": "true" }), el("span", {}, lead.role),
    el("span", { class: "words" }, lead.derivation === lead.role ? lead.words : `${lead.words} (${lead.derivation})`))));
  if (card.electrodes.length === 0) list.append(el("li", {}, el("span"), el("span"), el("span", { class: "words" }, "no electrodes seen")));
  say(by("judged"), card.judged ?? "");
  by("accept").hidden = !card.problems.some((problem) => problem.includes("accept_stream"));
  by("problems").replaceChildren(...card.problems.map((problem) => el("li", {}, problem)));
}

/** What the recorder says beside its signals: "Position 3, since 03:12". */
function gear(card) {
  const list = by("gear");
  const key = JSON.stringify(card.gear);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...card.gear.map((one) => el("li", {}, el("span", {}, gearWords(one)),
    el("time", { class: "words", datetime: one.since }, `since ${hm(one.since)}`))));
}

function statistics(data) {
  const minutes = (value) => (value === null || value === undefined ? null : lasting(60 * value));
  const rows = [
    ["Time in bed", minutes(data?.time_in_bed_min)],
    ["Total sleep", minutes(data?.total_sleep_min)],
    ["Sleep efficiency", data?.sleep_efficiency_percent == null ? null : `${data.sleep_efficiency_percent.toFixed(0)} %`],
    ["Sleep onset latency", minutes(data?.sleep_onset_latency_min)],
    ["Wake after sleep onset", minutes(data?.wake_after_sleep_onset_min)],
    ["REM latency", minutes(data?.rem_latency_min)],
    ["Withheld", minutes(data?.withheld_min)],
  ];
  by("statistics").replaceChildren(...rows.flatMap(([name, value]) => [
    el("dt", {}, name), el("dd", { class: value === null ? "none" : null }, value ?? "undefined"),
  ]));
  by("minutes").replaceChildren(...LEVELS.map((stage) => {
    const some = data?.stages[stage];
    return el("tr", {}, el("th", { scope: "row" }, el("span", { class: `swatch fill-${stage}` }), stage),
      el("td", {}, some ? some.minutes.toFixed(1) : "0"), el("td", {}, some?.percent == null ? "–" : some.percent.toFixed(0)));
  }));
}

function marks(night) {
  const list = by("marks");
  const data = night?.marks ?? [];
  const key = JSON.stringify(data);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  const kinds = { lights_off: "☾ Lights off", lights_on: "☀ Lights on", note: "✎ Note", notice: "⚑ Notice", stream: "⇄ Stream", phase: "Phase", gap: "Gap" };
  list.replaceChildren(...data.toReversed().map((one) => el("li", {},
    el("time", { datetime: one.at }, hm(one.at)), el("span", { class: "kind" }, kinds[one.kind] ?? one.kind), el("span", {}, one.text))));
  if (data.length === 0) list.append(el("li", {}, el("span"), el("span", { class: "kind" }, "none yet")));
}

function notice(card) {
  const line = by("not-live");
  line.hidden = card.source === "live";
  say(line, card.source === "replay" ? "Replayed: a recording, not a person now." : "Simulated: computed signals, not a person.");
}

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, textarea, select, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (!room || by("room").hidden) return;
  if (event.key === "ArrowLeft") panel.select((panel.epoch() ?? 0) - 1);
  else if (event.key === "ArrowRight") panel.select((panel.epoch() ?? 0) + 1);
  else if (event.key === "End") panel.select(null);
  else return;
  event.preventDefault();
});
