// Where the configuration comes from: a directory of YAML, or a control plane. Whoever runs by it knows neither.

import type { Evaluation } from "../resources/resource-set.ts";

/** The delta of the first state is everything. */
export interface ConfigState extends Omit<Evaluation, "lastGood"> {
  /** 1 for the first, then one more for each state that differs in anything else here. */
  readonly version: number;
}

export interface ConfigSource extends AsyncDisposable {
  /** The state in force. */
  readonly state: ConfigState;
  /** Looks again now, as SIGHUP asks for. */
  reload(): void;
  /** Goes on, and leaves the last good state on disk to another process. */
  stopStoring(): void;
  /** Resolves when the last good state of all that was told so far is on disk. */
  stored(): Promise<void>;
}
