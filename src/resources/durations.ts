// Durations as the two families of kinds write them, into whole milliseconds. Strict: a unit always, nothing below a millisecond,
// nothing longer than a timer can hold.

import { z } from "zod";
import { type Admission, admits } from "./admission.ts";

/** The longest wait a timer of the runtime takes (2^31 - 1 ms, 24 days). */
export const DURATION_MS_MAX = 2_147_483_647;
const UNITS_MS: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1, us: 0.001, ns: 0.000_001 };
const GATEWAY = /^([0-9]{1,5}(h|m|s|ms)){1,4}$/;
const GO = /^([0-9]{1,12}(\.[0-9]{1,9})?(h|ms|m|s|us|ns))+$/;
const TEXT_CHARS_MAX = 64;

/** `1h30m`, `250ms`: the Gateway API's form (GEP-2257). Null when malformed or too long. */
export const parseGatewayDuration = (text: string): number | null => (GATEWAY.test(text) ? sum(text) : null);

/** `1.5s`, `1h30m`, `0s`: Istio's form. Null when malformed, too long, or no whole number of milliseconds. */
export const parseDuration = (text: string): number | null => (text.length <= TEXT_CHARS_MAX && GO.test(text) ? sum(text) : null);

function sum(text: string): number | null {
  let total = 0;
  for (const [, value, unit] of text.matchAll(/([0-9.]+)(h|ms|m|s|us|ns)/g)) total += Number(value) * UNITS_MS[unit!]!;
  const rounded = Math.round(total);
  return Math.abs(total - rounded) < 1e-6 && rounded <= DURATION_MS_MAX ? rounded : null;
}

/** Text that `parses`; the same words for a number without its unit, which is no text. */
function durationText(parses: (text: string) => boolean, error: string, admission: Admission): z.ZodType<string, string> {
  return z.string({ error: ({ input }) => (typeof input === "number" ? error : undefined) }).refine(parses, { error }).meta({ maxLength: TEXT_CHARS_MAX, ...admission });
}

/** No API server tells whole milliseconds: a part of one it lets through, and our own check does not. */
const admitted = (least: string, message: string): Admission => admits({ rule: `self.matches(r'${GO.source}') && duration(self) >= duration('${least}') && duration(self) <= duration('${DURATION_MS_MAX}ms')`, message });
const [ANY, POSITIVE] = ["expected a duration such as 500ms, 1.5s or 1h30m, at most 24 days", "expected a duration of at least 1ms, such as 500ms, 1.5s or 1h30m"];

export const gatewayDuration = durationText((text) => parseGatewayDuration(text) !== null, "expected a duration such as 500ms, 10s or 1h30m: whole numbers with h, m, s or ms, at most 24 days", { pattern: GATEWAY.source });
export const duration = durationText((text) => parseDuration(text) !== null, ANY, admitted("0s", ANY));
export const positiveDuration = durationText((text) => (parseDuration(text) ?? 0) >= 1, POSITIVE, admitted("1ms", POSITIVE));

/** Of a text that the schema let through. */
export const durationMs = (text: string): number => parseDuration(text)!;
export const gatewayDurationMs = (text: string): number => parseGatewayDuration(text)!;
