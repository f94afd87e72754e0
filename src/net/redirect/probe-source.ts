// The node's own connections to the probed ports of its workloads, made to come from an address that nobody else has: in a workload's
// namespace the kubelet's probes can then be told from everything else that comes with the node's address, above all from what a
// service's node port has masqueraded. One table of our own in the node's namespace, in one transaction; nobody else's rules are
// looked at or changed. The translation ends at the node: packets on any wire have it only between node and workload.

import { RETRY_NEVER } from "../../core/fault.ts";
import { type IpAddress, ipToBytes, isIpv6 } from "../../core/ip.ts";
import { err, ok, type Result } from "../../core/result.ts";
import { type Expression, hexOf } from "../../wire/netlink/expression.ts";
import {
  type Chain, NFPROTO_INET, readRule, readTable, type Rule, type Table, writeDeleteTable, writeGetRules, writeGetTables, writeNewChain, writeNewRule, writeNewTable,
} from "../../wire/netlink/nf-tables.ts";
import { ENOENT } from "../libc.ts";
import { NETLINK_NETFILTER, type NetlinkRequest, NetlinkSocket } from "../netlink-socket.ts";
import { formatRule, type RedirectFault } from "./redirect.ts";
import { ACCEPT, address, compare, COUNTER, portRange, portRanges, protocol, TCP, uidRange } from "./rules.ts";

export interface ProbedWorkload {
  readonly address: IpAddress;
  readonly ports: readonly number[];
}

const TABLE: Table = { family: NFPROTO_INET, name: "weft-probes", comment: "weft: where the kubelet's probes come from" };
/** Before the usual place of source translation (100), so that nobody's masquerading is quicker: the first one counts. */
const CHAIN: Chain = { name: "postrouting", type: "nat", hook: "postrouting", priority: 90 };
/** The kubelet needs root on its node. Other users' processes there are strangers to the workloads. */
const ROOT = { first: 0, last: 0 };
const NOT_FORWARDED = "00000000";

/**
 * Puts exactly these in force. Idempotent; nothing is written when all is as wanted.
 * @param namespaceFd null for the namespace we are in.
 * @param sources the address to come from, one of each family at most; a workload of another family is left alone.
 * @returns whether something had to be changed.
 */
export function setProbeSource(namespaceFd: number | null, sources: readonly IpAddress[], workloads: readonly ProbedWorkload[]): Result<boolean, RedirectFault> {
  const opened = NetlinkSocket.open(namespaceFd, NETLINK_NETFILTER);
  if (!opened.ok) return refused(opened.error);
  using socket = opened.value;
  const wanted = probeRules(sources, workloads);
  const present = presentRules(socket);
  if (!present.ok) return refused(present.error);
  if (present.value !== null && sameRules(present.value, wanted)) return ok(false);
  const requests: NetlinkRequest[] = [];
  if (present.value !== null) requests.push({ object: `the old table ${TABLE.name}`, write: (writer, stamp) => writeDeleteTable(writer, stamp, TABLE) });
  requests.push(
    { object: `table ${TABLE.name}`, write: (writer, stamp) => writeNewTable(writer, stamp, TABLE) },
    { object: `chain ${CHAIN.name}`, write: (writer, stamp) => writeNewChain(writer, stamp, { family: TABLE.family, table: TABLE.name }, CHAIN) },
    ...wanted.map((rule): NetlinkRequest => ({ object: `rule "${rule.comment}"`, write: (writer, stamp) => writeNewRule(writer, stamp, { family: TABLE.family, table: TABLE.name }, rule) })),
  );
  const done = socket.batch(`table ${TABLE.name}`, requests, null);
  return done.ok ? ok(true) : refused(done.error);
}

/** Takes the table away; absent already is well. */
export function removeProbeSource(namespaceFd: number | null): Result<void, RedirectFault> {
  const opened = NetlinkSocket.open(namespaceFd, NETLINK_NETFILTER);
  if (!opened.ok) return refused(opened.error);
  using socket = opened.value;
  const deleted = socket.batch(`table ${TABLE.name}`, [{ object: `table ${TABLE.name}`, write: (writer, stamp) => writeDeleteTable(writer, stamp, TABLE) }], null);
  return deleted.ok || deleted.error.errno === ENOENT ? ok(undefined) : refused(deleted.error);
}

/** What is forwarded is decided by the first rule; of the rest only root's connections to a probed port are translated. */
function probeRules(sources: readonly IpAddress[], workloads: readonly ProbedWorkload[]): Rule[] {
  const rule = (comment: string, expressions: readonly Expression[]): Rule => ({ chain: CHAIN.name, comment, expressions });
  const rules = [
    rule("forwarded", [{ kind: "meta", key: "iif" }, compare("neq", NOT_FORWARDED), ACCEPT]),
  ];
  for (const { address: ip, ports } of workloads) {
    const family = isIpv6(ip) ? 6 : 4;
    const source = sources.find((each) => isIpv6(each) === (family === 6));
    if (source === undefined) continue;
    for (const range of portRanges(ports)) {
      rules.push(rule(`probes of ${ip}`, [
        ...address("destination", ip), ...uidRange(ROOT), ...protocol(TCP), ...portRange(range), COUNTER, { kind: "immediate", value: hexOf(ipToBytes(source)) }, { kind: "sourceNat", family },
      ]));
    }
  }
  return rules;
}

/** Null when the table is not there. */
function presentRules(socket: NetlinkSocket) {
  const tables = socket.dump({ object: "nf_tables tables", write: (writer, stamp) => writeGetTables(writer, stamp, TABLE.family) }, readTable);
  if (!tables.ok) return tables;
  if (!tables.value.some(({ name, family }) => name === TABLE.name && family === TABLE.family)) return ok(null);
  const rules = socket.dump({ object: "nf_tables rules", write: (writer, stamp) => writeGetRules(writer, stamp, { family: TABLE.family, table: TABLE.name }) }, readRule);
  return rules.ok ? ok(rules.value.filter(({ table }) => table === TABLE.name)) : rules;
}

function sameRules(present: readonly Rule[], wanted: readonly Rule[]): boolean {
  return present.length === wanted.length && present.every((rule, i) => formatRule(rule) === formatRule(wanted[i]!));
}

function refused(cause: { readonly message: string; readonly blame: RedirectFault["blame"] }): { ok: false; error: RedirectFault } {
  return err({ code: "redirect_refused", message: `cannot set where probes come from: ${cause.message}`, blame: cause.blame, dies: "nothing", retry: RETRY_NEVER, cause });
}
