// Numbers as people read them.
// In: numbers or null. Out: text. Never: the document.

export const NOTHING = "–";

/** A plain number with at most three digits after the point. */
export function plain(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return NOTHING;
  if (Math.abs(value) >= 1e9) return `${trim(value / 1e9)} G`;
  if (Math.abs(value) >= 1e6) return `${trim(value / 1e6)} M`;
  if (Math.abs(value) >= 1e4) return `${trim(value / 1e3)} k`;
  return trim(value);
}

function trim(value) {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return String(Number(value.toFixed(digits)));
}

/** Seconds, as milliseconds below one. */
export function seconds(value) {
  if (value === null || value === undefined) return NOTHING;
  if (value === 0) return "0 s";
  if (value < 1) return `${trim(value * 1000)} ms`;
  if (value < 120) return `${trim(value)} s`;
  return `${trim(value / 60)} min`;
}

/** A share as percent. */
export function percent(value) {
  return value === null || value === undefined ? NOTHING : `${trim(value * 100)} %`;
}

/** A count in full, with its digits in groups. */
export function exact(value) {
  return value === null || value === undefined ? NOTHING : value.toLocaleString("en-US");
}

/** The time of day. */
export function clock(time) {
  return new Date(time).toLocaleTimeString("en-GB");
}
