// What the benchmark asks of a proxy under test, or of the lack of one.

import type { Testbed } from "../l4/testbed.ts";

/**
 * `across`: client and server are on two nodes, each with its own proxy. `same-node`: both are on one node.
 * A proxy whose path is the same in both serves the same-node rows with its `across` pair.
 */
export type Placement = "across" | "same-node";

export interface Peer {
  readonly name: string;
  /** What is run, for the head of the report. */
  readonly command: () => string;
  /** Why it cannot run here, or null. */
  readonly missing: () => string | null;
  /** Why it cannot hold the idle connections here, or null. */
  readonly idleMissing: () => string | null;
  /** Where the destination proxy is reached: one of them must be in use once traffic has gone across. Empty for a direct connection. */
  readonly tunnelPorts: readonly number[];
  /** Whether a same-node connection takes another path than one across nodes. */
  readonly hasSameNodePath: boolean;
  /** Starts the proxies and the capture of traffic to the testbed's server; resolves when they say they are ready. No connection has gone through yet. */
  readonly start: (bed: Testbed, placement: Placement) => Promise<RunningPeer>;
}

export interface RunningPeer {
  /** Process ids of the two proxies; one id when one process serves both sides; none for a direct connection. */
  readonly pids: readonly number[];
  /** Dies with an explanation when one of the proxies has ended. */
  readonly assertAlive: () => void;
  /** The end of each proxy's log. */
  readonly logTails: () => string;
  /** Ends the proxies and takes the capture rules out, so that `start` can be called again on the same testbed. */
  readonly stop: () => Promise<void>;
}
