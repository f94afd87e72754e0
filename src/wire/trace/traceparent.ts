// The `traceparent` header (W3C Trace Context, section 3.2): sent with fresh random ids, read for the trace id alone.

import type { Random } from "../../core/ports.ts";

export interface Traceparent {
  /** 32 lower-case hexadecimal digits, not all zero. */
  readonly traceId: string;
  /** 16 lower-case hexadecimal digits, not all zero. */
  readonly parentId: string;
  readonly sampled: boolean;
}

/** Version 00, unsampled, with fresh ids. Uniqueness is all they need: they are no secret. */
export function randomTraceparent(random: Random): string {
  return `00-${randomHex(random, 32)}-${randomHex(random, 16)}-00`;
}

/** Of a `traceparent` that we made. */
export function traceIdOf(traceparent: string): string {
  return traceparent.slice(3, 35);
}

export function encodeTraceparent({ traceId, parentId, sampled }: Traceparent): string {
  return `00-${traceId}-${parentId}-${sampled ? "01" : "00"}`;
}

/** Null unless `text` is well-formed: version 00 exactly; of a later version the part that version 00 defines; never ff. */
export function decodeTraceparent(text: string): Traceparent | null {
  if (text.length < VERSION_00_CHARS || text.length > LATER_VERSION_CHARS_MAX) return null;
  const match = SHAPE.exec(text);
  if (match === null) return null;
  const [, version, traceId, parentId, flags, rest] = match;
  if (version === "ff" || (version === "00" && rest !== "")) return null;
  if (/^0+$/.test(traceId!) || /^0+$/.test(parentId!)) return null;
  return { traceId: traceId!, parentId: parentId!, sampled: (parseInt(flags!, 16) & 1) === 1 };
}

const VERSION_00_CHARS = 55;
/** Room for what a later version may append; ours to choose. */
const LATER_VERSION_CHARS_MAX = 512;
const SHAPE = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(|-[\x21-\x7e]*)$/;

function randomHex(random: Random, digits: number): string {
  let text = "";
  while (text.length < digits) text += Math.floor(random.next() * 0x1_0000_0000).toString(16).padStart(8, "0");
  return /^0+$/.test(text) ? `${text.slice(1)}1` : text;
}
