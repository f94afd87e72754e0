// `weft status`: what the replicas of the control plane say of those that are connected to them: ztunnels and waypoints, how far each has
// come, and what it refused.

import { parseArgs } from "node:util";
import { z } from "zod";
import { KubernetesClient } from "../../runtime/kubernetes/client.ts";
import { getFromPod } from "../../runtime/kubernetes/pod-port.ts";
import { CONTROL } from "../install/objects.ts";
import { NAMESPACE_DEFAULT } from "../install/values.ts";
import { CLUSTER_OPTIONS, EXIT_FAILED, EXIT_OK, fail, openAccess, table, type VerbContext } from "./context.ts";

const ADMIN_PORT = 15000;

const podsSchema = z.looseObject({ items: z.array(z.looseObject({ metadata: z.looseObject({ name: z.string(), deletionTimestamp: z.string().optional() }), status: z.looseObject({ phase: z.string().optional() }) })) });
const typeSchema = z.looseObject({ typeUrl: z.string(), sentState: z.number(), ackedState: z.number(), resourceCount: z.number(), rejected: z.looseObject({ message: z.string() }).nullable() });
const clientSchema = z.looseObject({ id: z.string(), caller: z.string(), view: z.looseObject({ kind: z.string(), node: z.string().optional(), gateway: z.string().optional() }), agentVersion: z.string(), types: z.array(typeSchema) });
const dumpSchema = z.looseObject({ version: z.string(), publishedState: z.number(), lease: z.looseObject({ holds: z.boolean() }), clients: z.array(clientSchema) });

export async function status(args: readonly string[], context: VerbContext): Promise<number> {
  const { values: flags } = parseArgs({ args: [...args], strict: true, options: { ...CLUSTER_OPTIONS, namespace: { type: "string", short: "n", default: NAMESPACE_DEFAULT }, json: { type: "boolean", default: false } } });
  const access = openAccess(flags, context);
  if (!access.ok) return fail(context, access.error);
  const { namespace } = flags;
  const answer = await new KubernetesClient(access.value).get(`/api/v1/namespaces/${namespace}/pods?labelSelector=${encodeURIComponent(`app=${CONTROL}`)}`);
  if (!answer.ok) return fail(context, answer.error.message);
  const pods = podsSchema.parse(answer.value).items.filter(({ metadata, status: { phase } }) => phase === "Running" && metadata.deletionTimestamp === undefined);
  if (pods.length === 0) return fail(context, `no control plane runs in namespace ${namespace}; weft check says more`);
  const replicas = await Promise.all(pods.map(async ({ metadata }) => ({ name: metadata.name, dump: await getFromPod(access.value, { namespace, pod: metadata.name, port: ADMIN_PORT }, "/config_dump") })));
  const said: { name: string; dump: z.infer<typeof dumpSchema> }[] = [];
  for (const { name, dump } of replicas) {
    if (dump.ok) said.push({ name, dump: dumpSchema.parse(JSON.parse(dump.value)) });
    else context.complain(`weft: ${dump.error}\n`);
  }
  if (flags.json) {
    context.print(`${JSON.stringify(said.map(({ name, dump: { version, publishedState, lease, clients } }) => ({ replica: name, version, publishedState, writes: lease.holds, clients })), null, 2)}\n`);
    return said.length === replicas.length ? EXIT_OK : EXIT_FAILED;
  }
  context.print(table([["CONTROL PLANE", "VERSION", "STATE", "CLIENTS", "WRITES"], ...said.map(({ name, dump }) => [name, dump.version, String(dump.publishedState), String(dump.clients.length), dump.lease.holds ? "yes" : "no"])]));
  const rows = said.flatMap(({ name, dump }) => dump.clients.map((client) => clientRow(name, dump.publishedState, client)));
  context.print(`\n${table([["AGENT", "KIND", "VERSION", "CONFIGURATION", "RESOURCES", "CONTROL PLANE", "REJECTED"], ...rows.sort((a, b) => a[0]!.localeCompare(b[0]!))])}`);
  return said.length === replicas.length ? EXIT_OK : EXIT_FAILED;
}

/** Up to date when it has confirmed all that it was told, and has been told of the last state that concerned it. */
function clientRow(replica: string, published: number, { id, caller, view, agentVersion, types }: z.infer<typeof clientSchema>): string[] {
  const [, , podAndNamespace = ""] = id.split("~");
  const behind = types.filter(({ sentState, ackedState }) => ackedState < sentState);
  const confirmed = Math.max(0, ...types.map(({ ackedState }) => ackedState));
  const rejected = types.filter(({ rejected: refusal }) => refusal !== null).map(({ typeUrl, rejected: refusal }) => `${typeUrl.slice(typeUrl.lastIndexOf(".") + 1)}: ${refusal!.message}`);
  return [
    podAndNamespace === "" ? caller : podAndNamespace, view.kind === "node" ? `ztunnel of ${view.node ?? "?"}` : `waypoint ${view.gateway ?? "?"}`, agentVersion === "" ? "-" : agentVersion,
    behind.length === 0 ? `confirmed (${confirmed} of ${published})` : `behind: ${behind.map(({ sentState, ackedState }) => `${ackedState} of ${sentState}`).join(", ")}`,
    String(types.reduce((sum, { resourceCount }) => sum + resourceCount, 0)), replica, rejected.length === 0 ? "-" : rejected.join("; "),
  ];
}
