// Ids of traces and spans, from random bytes that are fetched many at a time: asking the system for each costs more than the
// request's other telemetry. Where the bytes come from is given in.

/** Fills the whole of `bytes`. */
export type FillRandom = (bytes: Uint8Array) => void;

/** Some 170 traces' worth; the text made of it is twice as long. */
const POOL_BYTES = 4096;
const TRACE_DIGITS = 32;
const SPAN_DIGITS = 16;

export class IdSource {
  readonly #fill: FillRandom;
  readonly #bytes = new Uint8Array(POOL_BYTES);
  #hex = "";
  #at = 0;

  constructor(fill: FillRandom) {
    this.#fill = fill;
  }

  /** 32 hexadecimal digits, not all zero (W3C Trace Context, section 3.2.2.3). */
  traceId(): string {
    return nonZero(this.#take(TRACE_DIGITS));
  }

  /** 16 hexadecimal digits, not all zero. */
  spanId(): string {
    return nonZero(this.#take(SPAN_DIGITS));
  }

  #take(digits: number): string {
    if (this.#at + digits > this.#hex.length) this.#refill();
    return this.#hex.slice(this.#at, (this.#at += digits));
  }

  #refill(): void {
    this.#fill(this.#bytes);
    this.#hex = this.#bytes.toHex();
    this.#at = 0;
  }
}

function nonZero(hex: string): string {
  return hex.charCodeAt(0) === 0x30 && /^0+$/.test(hex) ? `${hex.slice(1)}1` : hex;
}

/** Where in [0, 1) a trace id falls: the same in every process, so that all take or leave the same traces. Its last 52 bits are used. */
export function fractionOf(traceId: string): number {
  return Number.parseInt(traceId.slice(-13), 16) / 2 ** 52;
}

/** What a person or a tool may send as x-request-id: anything that is one visible word and not too long. */
const REQUEST_ID = /^[\x21-\x7e]{1,128}$/;

export function isRequestId(text: string): boolean {
  return REQUEST_ID.test(text);
}
