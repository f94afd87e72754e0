// The grpc-timeout header: up to eight digits and a unit, nothing else (gRPC over HTTP/2, "Timeout").

const MS_OF_UNIT: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };
const UNITS_RISING = ["n", "u", "m", "S", "M", "H"] as const;
const VALUE_MAX = 99_999_999;

/** Milliseconds, maybe with a fraction; null for anything that is not exactly a timeout. */
export function parseGrpcTimeout(text: string): number | null {
  const match = /^([0-9]{1,8})([HMSmun])$/.exec(text);
  return match === null ? null : Number(match[1]) * MS_OF_UNIT[match[2]!]!;
}

/** The header for a time left, in the finest unit from microseconds on that holds it; rounded down, so that no hop adds time. */
export function formatGrpcTimeout(ms: number): string {
  for (const unit of UNITS_RISING.slice(1)) {
    // A millisecond is 1e3 microseconds and not 1 / 1e-3: the division must not round up.
    const value = Math.floor(unit === "u" ? ms * 1e3 : ms / MS_OF_UNIT[unit]!);
    if (value <= VALUE_MAX) return `${Math.max(value, 0)}${unit}`;
  }
  return `${VALUE_MAX}H`;
}
