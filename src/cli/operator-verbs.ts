// The operator's verbs: what they do in a line, how they are used, and where they are. Each is loaded when it is asked for.

import type { VerbContext } from "./verbs/context.ts";

export interface OperatorVerb {
  readonly line: string;
  readonly usage: string;
  readonly load: () => Promise<(args: readonly string[], context: VerbContext) => Promise<number>>;
}

const CLUSTER = "  --kubeconfig PATH, --context NAME   the cluster; as kubectl has it by default";

export const OPERATOR_VERBS = {
  install: {
    line: "puts the mesh into a Kubernetes cluster, or brings it up to date",
    usage: `weft install [OPTIONS]\n\n  -n, --namespace NAME   where it is, istio-system by default\n  --set NAME=VALUE       a value of the installation, any number of times; deploy/chart/values.yaml lists them\n                         lists and maps as JSON; of a map also one name in it: ztunnel.nodeSelector.disk=ssd\n  --dry-run              prints the objects and changes nothing\n  --no-wait              does not wait until everything is ready\n  --timeout SECONDS      how long it waits, 120 by default\n${CLUSTER}`,
    load: async () => (await import("./verbs/install.ts")).install,
  },
  uninstall: {
    line: "takes it away again: pods leave the mesh first, nothing is cut off",
    usage: `weft uninstall [OPTIONS]\n\n  -n, --namespace NAME   where it is, istio-system by default\n  --keep-ca              keeps the keys of its CA, so that a later installation has the same roots\n  --keep-crds            keeps the definitions of our kinds, and with them their objects\n  --dry-run              looks what is there and would be removed, and changes nothing\n${CLUSTER}`,
    load: async () => (await import("./verbs/uninstall.ts")).uninstall,
  },
  check: {
    line: "says what a cluster needs for the mesh, has, and lacks",
    usage: `weft check [OPTIONS]\n\n  --before-install       only what must be so before weft install\n  -n, --namespace NAME   where the mesh is or will be, istio-system by default\n${CLUSTER}`,
    load: async () => (await import("./verbs/check.ts")).check,
  },
  status: {
    line: "shows each agent and waypoint, which configuration it has, and what it rejected",
    usage: `weft status [OPTIONS]\n\n  -n, --namespace NAME   where the mesh is, istio-system by default\n  --json                 everything, as JSON\n${CLUSTER}`,
    load: async () => (await import("./verbs/status.ts")).status,
  },
  waypoint: {
    line: "of a cluster: weft waypoint apply, list or delete",
    usage: `weft waypoint apply|list|delete [OPTIONS]\n\n  -n, --namespace NAME   of the waypoint; the kubeconfig's by default, and for list all\n  --name NAME            waypoint by default\n  --for WHAT             service (default), workload, all or none\n  --enroll-namespace     has the namespace use it, once it serves\n  --wait                 waits until it serves\n  --dry-run              prints the Gateway and changes nothing\n${CLUSTER}\n\nWithout one of the three: the waypoint itself; see weft waypoint --help`,
    load: async () => (await import("./verbs/waypoint.ts")).waypoint,
  },
} as const satisfies Readonly<Record<string, OperatorVerb>>;

const WAYPOINT_VERBS = ["apply", "list", "delete"];

export type OperatorVerbName = keyof typeof OPERATOR_VERBS;
/** `waypoint` is a role, too: it is the operator's with one of the operator's words after it. */
export function isOperatorVerb(verb: string, next = ""): verb is OperatorVerbName {
  return Object.hasOwn(OPERATOR_VERBS, verb) && (verb !== "waypoint" || WAYPOINT_VERBS.includes(next));
}

/** @returns the exit status; bad options are told with the verb's usage. */
export async function runOperatorVerb(name: OperatorVerbName, args: readonly string[], context: VerbContext): Promise<number> {
  const verb: OperatorVerb = OPERATOR_VERBS[name];
  if (args.includes("--help") || args.includes("-h")) {
    context.print(verbHelp(name));
    return 0;
  }
  const run = await verb.load();
  try {
    return await run(args, context);
  } catch (cause) {
    if (!(cause instanceof TypeError) || !("code" in cause)) throw cause;
    context.complain(`weft ${name}: ${cause.message}\n\n${verbHelp(name)}`);
    return 64;
  }
}

export function verbHelp(name: OperatorVerbName): string {
  const { line, usage } = OPERATOR_VERBS[name];
  return `weft ${name}: ${line}\n\nUsage: ${usage}\n`;
}
