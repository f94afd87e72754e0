// What must be so before the first library is loaded: the copying routine of glibc, the tiers of the JavaScript compiler, how thorough its
// collector is, how often the allocator gives pages back, and an environment that cannot put code into this process. All are decided from the environment alone (pure), and take effect by executing ourselves once more.

/** Copies of up to 256 MiB without `rep movsb`, which is slow on many virtual machines: see docs/operations.md. */
export const TUNABLE = "glibc.cpu.x86_rep_movsb_threshold";
const TUNABLE_VALUE = "0x10000000";
/**
 * The last tier of the JavaScript compiler is left out: compiling with it takes more processor time than the faster code gives back
 * in a process that spends nine tenths of its time in the kernel and in TLS, and it does so in the first seconds of a load. A waypoint, which
 * spends two thirds of its time in our own code, keeps it: a fifth less processor time for each request.
 */
export const LAST_TIER = "BUN_JSC_useFTLJIT";
/**
 * A collection looks at the whole heap, not only at what is new, when the new may not be a larger share of it than this; the compiler's own
 * choice is a third. What requests under way hold is old to every collection that meets it: with a third, as much garbage gathers there as there
 * is life in the heap, which a thousand connections at work make 40 MB. Set for a waypoint, the one that has so many objects under way.
 */
export const NEW_SHARE = "BUN_JSC_minEdenToOldGenerationRatio";
const NEW_SHARE_MIN = "0.45";
/**
 * Milliseconds between two of the times at which a thread of the allocator's looks for pages to give back. Its own choice is 100: ten times a
 * second it takes a processor for one to three milliseconds in the middle of a load, and gives back what the load needs again at once.
 */
export const GIVE_BACK_INTERVAL = "MIMALLOC_PURGE_HOLES_MIN_INTERVAL";
const GIVE_BACK_INTERVAL_MS = "1000";
/** Set on the second run, so that there is never a third. */
export const EXECUTED_MARKER = "WEFT_EXECUTED";

/** Variables by which Bun loads code or changes what this program is. A mesh's agent runs with power over its node: it takes no such orders. */
const CODE_VARIABLES = ["BUN_OPTIONS", "BUN_BE_BUN", "BUN_INSPECT", "BUN_INSPECT_CONNECT_TO", "BUN_INSPECT_NOTIFY", "NODE_OPTIONS", "BUN_CONFIG_VERBOSE_FETCH"];

type Environment = Readonly<Record<string, string | undefined>>;

export interface Machine {
  readonly arch: string;
  readonly platform: string;
  readonly glibc: boolean;
  /** The role spends most of its time in our own code. */
  readonly computes: boolean;
  /** True inside the compiled binary, whose first argument is not a script. */
  readonly compiled: boolean;
}

export type EnvironmentDecision =
  | { readonly kind: "proceed" }
  | { readonly kind: "refuse"; readonly message: string }
  /** The process must execute itself anew with this environment. */
  | { readonly kind: "execute"; readonly environment: Readonly<Record<string, string>> };

export function judgeEnvironment(environment: Environment, machine: Machine): EnvironmentDecision {
  const dangerous = machine.compiled ? CODE_VARIABLES.filter((name) => (environment[name] ?? "") !== "") : [];
  if (dangerous.length > 0) {
    return { kind: "refuse", message: `${dangerous.join(", ")} set: such variables load code into this process; unset them and start again` };
  }
  if (environment[EXECUTED_MARKER] !== undefined || machine.platform !== "linux") return { kind: "proceed" };
  const wanted: Record<string, string> = {};
  if (!machine.computes && environment[LAST_TIER] === undefined) wanted[LAST_TIER] = "0";
  if (machine.computes && environment[NEW_SHARE] === undefined) wanted[NEW_SHARE] = NEW_SHARE_MIN;
  if (environment[GIVE_BACK_INTERVAL] === undefined) wanted[GIVE_BACK_INTERVAL] = GIVE_BACK_INTERVAL_MS;
  const tunables = environment["GLIBC_TUNABLES"] ?? "";
  if (machine.arch === "x64" && machine.glibc && !tunables.split(":").some((each) => each.startsWith(`${TUNABLE}=`))) {
    wanted["GLIBC_TUNABLES"] = tunables === "" ? `${TUNABLE}=${TUNABLE_VALUE}` : `${tunables}:${TUNABLE}=${TUNABLE_VALUE}`;
  }
  if (Object.keys(wanted).length === 0) return { kind: "proceed" };
  const next: Record<string, string> = {};
  for (const [name, value] of Object.entries(environment)) if (value !== undefined) next[name] = value;
  Object.assign(next, wanted, { [EXECUTED_MARKER]: "1" });
  return { kind: "execute", environment: next };
}
