// How stages, times and reasons are said.

export const STAGES = ["W", "N1", "N2", "N3", "R"];
/** Top to bottom, as hypnograms are drawn. */
export const LEVELS = ["W", "R", "N1", "N2", "N3"];
export const PAGE_S = 30;

export const STAGE_WORDS = { W: "Wake", N1: "N1", N2: "N2", N3: "N3", R: "REM" };

export const REASONS = {
  low_coverage: "too little signal on the page",
  missing_channel: "a needed channel is missing",
  detached: "electrode detached",
  out_of_scale: "signal out of scale",
  unknown_unit: "unit of the signal unknown",
  too_late: "the model answered too late",
  no_model: "no model can run",
  daemon_down: "the daemon was down",
  session_end: "the session ended within the page",
};

const MINUTES = { hour: "2-digit", minute: "2-digit" };
const SECONDS = { ...MINUTES, second: "2-digit" };
let zone = "UTC";
let clock = new Intl.DateTimeFormat("en-GB", { ...MINUTES, timeZone: zone });
let clockSeconds = new Intl.DateTimeFormat("en-GB", { ...SECONDS, timeZone: zone });

/** Show times by the clocks of the site, wherever the browser is. */
export function useZone(name) {
  if (name === zone) return;
  zone = name;
  clock = new Intl.DateTimeFormat("en-GB", { ...MINUTES, timeZone: zone });
  clockSeconds = new Intl.DateTimeFormat("en-GB", { ...SECONDS, timeZone: zone });
}

/** The moment of today at which the site's clocks show a time. */
export function atSiteTime(hours, minutes, seconds, now) {
  const format = new Intl.DateTimeFormat("en-CA", {
    timeZone: zone, hourCycle: "h23", year: "numeric", month: "2-digit", day: "2-digit", ...SECONDS,
  });
  const part = Object.fromEntries(format.formatToParts(now).map(({ type, value }) => [type, Number(value)]));
  const shown = Date.UTC(part.year, part.month - 1, part.day, part.hour, part.minute, part.second);
  const ahead = shown - Math.floor(now.getTime() / 1000) * 1000;
  return new Date(Date.UTC(part.year, part.month - 1, part.day, hours, minutes, seconds) - ahead);
}

/** 03:12 */
export const hm = (when) => clock.format(typeof when === "string" ? new Date(when) : when);
/** 03:12:30 */
export const hms = (when) => clockSeconds.format(typeof when === "string" ? new Date(when) : when);

/** 45 s, 12 min, 1 h 05 min */
export function lasting(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

export const percent = (share) => `${Math.round(100 * share)} %`;

/** A rule of the lab's own that was met recently: "⚑ three pages of N2, 03:12". */
export const metWords = (card) => (card.notice ? `⚑ ${card.notice.text}, ${hm(card.notice.at)}` : "");

/** "Position 3", "Impedance C4 4.2 kOhm": the recorder's own label, value and unit. */
export function gearWords({ kind, channel, value, unit }) {
  const named = channel.toLowerCase().startsWith(kind.slice(0, 3)) ? channel : `${kind[0].toUpperCase()}${kind.slice(1)} ${channel}`;
  return `${named} ${value}${unit ? ` ${unit}` : ""}`;
}

/** Orders bed 2 before bed 10. */
export const byName = (a, b) => a.localeCompare(b, "en", { numeric: true });

/** Bed "3" is called Bed 3; "bed-3" and "north" are called by their names. */
export const bedName = (bed) => (/^\d+$/.test(bed) ? `Bed ${bed}` : bed.replace(/^bed[-_]?(\d+)$/i, "Bed $1"));
