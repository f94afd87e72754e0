// Lines about peers that were refused before they had a connection, and hence a line in the access log: enough to see who, whatever comes.

import type { RateLimit } from "../wire/http2/limits.ts";
import { TokenBucket } from "../wire/http2/rate-limit.ts";

/** Enough to see who it is; a flood of them fills no disk. */
const REFUSAL_WARNINGS: RateLimit = { burst: 100, perSecond: 10 };

export class RefusalWarnings {
  readonly #bucket: TokenBucket;
  readonly #dropped: { value: number };

  /** @param dropped counts those that are left out. */
  constructor(nowMs: () => number, dropped: { value: number }) {
    this.#bucket = new TokenBucket(REFUSAL_WARNINGS, nowMs, nowMs());
    this.#dropped = dropped;
  }

  /** False: this one is counted, and not written. */
  take(): boolean {
    const taken = this.#bucket.take();
    if (!taken) this.#dropped.value++;
    return taken;
  }
}
