// A connection or tunnel as whoever watches over it sees it: judged again, ended, described.

import type { CloseCause } from "./close-cause.ts";

/** A live connection or tunnel as its workload sees it. */
export interface LiveConnection {
  /** Judges it again under the rules in force now; ends it when they no longer allow it. */
  judgeAgain(): void;
  /** Ends it now. */
  destroy(cause: CloseCause): void;
  /** For /config_dump. */
  describe(): LiveConnectionDescription | null;
}

export interface LiveConnectionDescription {
  readonly direction: "inbound" | "outbound";
  readonly source: string;
  /** Outbound, the address that the application dialled; inbound, the host name of the service, where one was addressed. */
  readonly asked: string | null;
  /** The address that our own connection goes to: a tunnel's, or the application's. */
  readonly reached: string;
  readonly protocol: "HBONE" | "TCP";
  readonly openedMs: number;
}
