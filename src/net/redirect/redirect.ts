// Capture in a network namespace: nf_tables rules that lead connections to our listeners, and the routing that brings back
// replies to connections opened from a client's address. Through netlink alone.
//
// The rules are one table, `inet weft`, and change in one transaction: packets meet the old rules or the new, never a part.
//
// Whose they are is written in the table's comment: `weft owner=OWNER generation=N mode=MODE`. Two agents overlap when one
// takes over from another, and so:
//   install   takes the table over from whoever held it, crashed or leaving, with the next generation;
//   repair    puts back what is missing or changed, unless somebody else has taken over: then it is refused;
//   drain     stops capturing new connections and keeps those there are, under the same condition;
//   remove    takes away our own table only.
// A transaction names the state of the rules that it was decided on; the kernel refuses it when that has changed in between.
//
// The routing rule and route are the same for every owner and are not removed while anybody's table is there.

import { type Fault, RETRY_NEVER } from "../../core/fault.ts";
import { err, ok, type Result } from "../../core/result.ts";
import { type Expression, formatExpression } from "../../wire/netlink/expression.ts";
import {
  type Chain, type FoundChain, NFPROTO_INET, readChain, readGeneration, readRule, readTable, type Rule, type Table, writeDeleteTable, writeGetChains, writeGetGeneration, writeGetRules, writeGetTables,
  writeNewChain, writeNewRule, writeNewTable,
} from "../../wire/netlink/nf-tables.ts";
import type { Link, MarkRule, Route } from "../../wire/netlink/route.ts";
import { ENOENT, ERESTART } from "../libc.ts";
import { NamespaceLinks, readSysctl } from "../links.ts";
import { NETLINK_NETFILTER, type NetlinkFault, type NetlinkRequest, NetlinkSocket } from "../netlink-socket.ts";
import { findCgroups } from "./cgroups.ts";
import { trackExistingConnections } from "./existing-connections.ts";
import { EXCLUSION_RULES_MAX, type RedirectOptions } from "./options.ts";
import { type CaptureMode, redirectRules, type Ruleset, TABLE_NAME } from "./rules.ts";
import { forgetEndedDials } from "./translated-connections.ts";

export type RedirectFault = Fault<"redirect_refused" | "redirect_superseded" | "redirect_busy" | "redirect_options">;

export interface Installed {
  readonly generation: number;
  /** False when the rules were ours and right already. */
  readonly changed: boolean;
  /** The owner that was taken over from; null when there was none or it was us. */
  readonly tookOverFrom: string | null;
  /** What an operator should know: IPv6 left out, a cgroup that does not exist, connections that could not be kept. */
  readonly notes: readonly string[];
}

export type Removed =
  | { readonly kind: "removed" }
  | { readonly kind: "absent" }
  | { readonly kind: "ownedByOther"; readonly owner: string };

export type Inspection =
  | { readonly kind: "absent"; readonly leftovers: readonly string[] }
  | {
      readonly kind: "present";
      /** Empty when the table is not stamped by us: made by hand, or by something else of that name. */
      readonly owner: string;
      readonly generation: number;
      readonly mode: CaptureMode;
      /** What differs from the options, one line each; empty when all is as wanted. */
      readonly drift: readonly string[];
      readonly counters: readonly RuleCounter[];
    };

export interface RuleCounter {
  readonly chain: string;
  readonly comment: string;
  readonly packets: bigint;
  readonly bytes: bigint;
}

/** A transaction that others keep overtaking is given up after this many. */
const ATTEMPTS = 16;

const OWNER = /^[A-Za-z0-9._-]{1,40}$/;
const STAMP = /^weft owner=([A-Za-z0-9._-]{1,40}) generation=([0-9]{1,10}) mode=(capture|prepare|drain)$/;
const TABLE_ID = { family: NFPROTO_INET, table: TABLE_NAME };

/**
 * Puts the redirection in force, whoever held it before. Do it when the listeners are there. Idempotent.
 * Connections that exist already are left as they are: redirected ones stay redirected, direct ones stay direct.
 * @param namespaceFd borrowed.
 */
export function installRedirect(namespaceFd: number, options: RedirectOptions): Result<Installed, RedirectFault> {
  return bringTo("capture", namespaceFd, options, "take");
}

/** As installRedirect, but fails with `redirect_superseded` when another owner has taken over since. */
export function repairRedirect(namespaceFd: number, options: RedirectOptions): Result<Installed, RedirectFault> {
  return bringTo("capture", namespaceFd, options, "keep");
}

/**
 * Leaves new connections alone from now on; those that were redirected go on as they are. Then, when they have ended or
 * their time is up: removeRedirect. Fails with `redirect_superseded` when another owner has taken over.
 */
export function drainRedirect(namespaceFd: number, options: RedirectOptions): Result<Installed, RedirectFault> {
  const drained = bringTo("drain", namespaceFd, options, "keep");
  if (!drained.ok) return drained;
  const forgotten = forgetEndedDials(namespaceFd);
  return forgotten.ok ? drained : ok({ ...drained.value, notes: [...drained.value.notes, `direct connections from ports that were dialled from before may be cut when the rules go: ${forgotten.error.message}`] });
}

/** Takes away all that installRedirect made; another owner's rules stay. Redirected connections that are still open end. Idempotent. */
export function removeRedirect(namespaceFd: number, options: RedirectOptions): Result<Removed, RedirectFault> {
  const opened = Capture.open(namespaceFd, options);
  if (!opened.ok) return opened;
  using capture = opened.value;
  const removed = capture.remove();
  return removed.ok ? removed : refused("remove the redirection", removed.error);
}

/** What is in force, and how it differs from the options. Changes nothing. */
export function inspectRedirect(namespaceFd: number, options: RedirectOptions): Result<Inspection, RedirectFault> {
  const opened = Capture.open(namespaceFd, options);
  if (!opened.ok) return opened;
  using capture = opened.value;
  const inspection = capture.inspect();
  return inspection.ok ? inspection : refused("read the redirection", inspection.error);
}

function bringTo(mode: "capture" | "drain", namespaceFd: number, options: RedirectOptions, from: "take" | "keep"): Result<Installed, RedirectFault> {
  const problem = optionsProblem(options);
  if (problem !== null) return fault("redirect_options", `cannot redirect: ${problem}`, "operator");
  const opened = Capture.open(namespaceFd, options);
  if (!opened.ok) return opened;
  using capture = opened.value;
  return capture.bringTo(mode, from);
}

function optionsProblem(options: RedirectOptions): string | null {
  if (!OWNER.test(options.owner)) return `owner ${JSON.stringify(options.owner)} is not 1 to 40 of letters, digits, dot, dash, underscore`;
  const { exclusions } = options;
  const rules = exclusions.outboundPorts.length * 2 + exclusions.inboundPorts.length + exclusions.outboundCidrs.length + exclusions.uids.length + exclusions.cgroups.length;
  if (rules > EXCLUSION_RULES_MAX) return `${rules} exclusions, at most ${EXCLUSION_RULES_MAX} rules`;
  const ports = [...Object.values(options.ports), ...exclusions.outboundPorts, ...exclusions.inboundPorts, ...(options.inboundPortsOnly ?? []), ...(options.probes?.ports ?? [])] as number[];
  const badPort = ports.find((port) => !Number.isInteger(port) || port < 1 || port > 65535);
  if (badPort !== undefined) return `${badPort} is no port`;
  const badUid = exclusions.uids.find(({ first, last }) => !Number.isInteger(first) || !Number.isInteger(last) || first < 0 || last < first || last > 0xffffffff);
  return badUid === undefined ? null : `${badUid.first}-${badUid.last} is no range of users`;
}

/** What is in the kernel at one generation of its rules. */
interface State {
  readonly kernelGeneration: number;
  readonly table: Table | null;
  readonly chains: readonly FoundChain[];
  readonly rules: readonly Rule[];
}

interface Holder {
  readonly owner: string;
  readonly generation: number;
  readonly mode: CaptureMode;
}

/** One piece of work in one namespace: its sockets and what was read through them. */
class Capture implements Disposable {
  readonly #namespaceFd: number;
  readonly #options: RedirectOptions;
  readonly #rules: NetlinkSocket;
  readonly #links: NamespaceLinks;

  private constructor(namespaceFd: number, options: RedirectOptions, sockets: { readonly rules: NetlinkSocket; readonly links: NamespaceLinks }) {
    this.#namespaceFd = namespaceFd;
    this.#options = options;
    this.#rules = sockets.rules;
    this.#links = sockets.links;
  }

  static open(namespaceFd: number, options: RedirectOptions): Result<Capture, RedirectFault> {
    const rules = NetlinkSocket.open(namespaceFd, NETLINK_NETFILTER);
    if (!rules.ok) return refused("reach the namespace's rules", rules.error);
    const links = NamespaceLinks.open(namespaceFd);
    if (links.ok) return ok(new Capture(namespaceFd, options, { rules: rules.value, links: links.value }));
    rules.value[Symbol.dispose]();
    return refused("reach the namespace's routing", links.error);
  }

  [Symbol.dispose](): void {
    this.#rules[Symbol.dispose]();
    this.#links[Symbol.dispose]();
  }

  bringTo(mode: "capture" | "drain", from: "take" | "keep"): Result<Installed, RedirectFault> {
    const cgroups = findCgroups(this.#options.exclusions.cgroups);
    const wanted = redirectRules(this.#options, cgroups.matches, mode);
    const notes = cgroups.missing.map((path) => `cgroup ${path} does not exist on this host: nothing is excluded by it`);
    const keptNotes = new Set<string>();
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      const state = this.#read();
      if (!state.ok) return refused("read the redirection", state.error);
      const holder = holderOf(state.value.table);
      if (from === "keep" && holder !== null && holder.owner !== this.#options.owner) return superseded(holder);
      const routing = this.#ensureRouting();
      if (!routing.ok) return refused("set up the routing of replies", routing.error);
      const outcome = this.#bringOnce({ mode, wanted, state: state.value, holder, keptNotes });
      if (!outcome.ok && outcome.error.errno === ERESTART) continue;
      if (!outcome.ok) return refused(mode === "capture" ? "install the redirection" : "end the redirection of new connections", outcome.error);
      // Whoever removed the rules before us may have taken the routing with them after we had looked.
      const again = this.#ensureRouting();
      if (!again.ok) return refused("set up the routing of replies", again.error);
      return ok({ ...outcome.value, notes: [...notes, ...keptNotes, ...again.value] });
    }
    return fault("redirect_busy", `cannot redirect: the namespace's rules changed under each of ${ATTEMPTS} transactions; another agent at work?`, "us");
  }

  #bringOnce(task: {
    readonly mode: "capture" | "drain";
    readonly wanted: Ruleset;
    readonly state: State;
    readonly holder: Holder | null;
    readonly keptNotes: Set<string>;
  }): Result<Omit<Installed, "notes">, NetlinkFault> {
    const { mode, wanted, state, holder } = task;
    const ours = holder !== null && holder.owner === this.#options.owner;
    const tookOverFrom = holder === null || ours ? null : holder.owner;
    if (ours && holder.mode === mode && differences(state, wanted).length === 0) return ok({ generation: holder.generation, changed: false, tookOverFrom });
    const generation = (holder?.generation ?? 0) + 1;
    const capturedBefore = state.chains.some(({ chain }) => chain?.type === "nat");
    if (mode === "drain" || capturedBefore) {
      const replaced = this.#replace({ state, wanted, mode, generation });
      return replaced.ok ? ok({ generation, changed: true, tookOverFrom }) : replaced;
    }
    return this.#firstCapture({ ...task, generation, tookOverFrom });
  }

  /** Two transactions: connection tracking on; the connections there are entered; then the redirection. */
  #firstCapture(task: {
    readonly wanted: Ruleset;
    readonly state: State;
    readonly generation: number;
    readonly tookOverFrom: string | null;
    readonly keptNotes: Set<string>;
  }): Result<Omit<Installed, "notes">, NetlinkFault> {
    const { wanted, generation, tookOverFrom } = task;
    const prepared = this.#replace({ state: task.state, wanted: redirectRules(this.#options, [], "prepare"), mode: "prepare", generation });
    if (!prepared.ok) return prepared;
    const existing = trackExistingConnections(this.#namespaceFd);
    if (existing.trouble !== null) task.keptNotes.add(`connections open before capture may break: ${existing.trouble}`);
    const state = this.#read();
    if (!state.ok) return state;
    const replaced = this.#replace({ state: state.value, wanted, mode: "capture", generation: generation + 1 });
    return replaced.ok ? ok({ generation: generation + 1, changed: true, tookOverFrom }) : replaced;
  }

  remove(): Result<Removed, NetlinkFault> {
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      const state = this.#read();
      if (!state.ok) return state;
      const { table, kernelGeneration } = state.value;
      const holder = holderOf(table);
      if (holder !== null && holder.owner !== this.#options.owner) return ok({ kind: "ownedByOther", owner: holder.owner });
      if (table !== null) {
        const deletion: NetlinkRequest = { object: `table ${TABLE_NAME}`, write: (writer, stamp) => writeDeleteTable(writer, stamp, table) };
        const deleted = this.#rules.batch("the removal of our rules", [deletion], kernelGeneration);
        if (!deleted.ok && deleted.error.errno === ERESTART) continue;
        if (!deleted.ok && deleted.error.errno !== ENOENT) return deleted;
      }
      const cleared = this.#removeRouting();
      if (!cleared.ok) return cleared;
      return ok({ kind: table === null ? "absent" : "removed" });
    }
    return err({ code: "netlink_refused", message: `the namespace's rules changed under each of ${ATTEMPTS} transactions`, blame: "us", dies: "nothing", retry: RETRY_NEVER, errno: ERESTART });
  }

  inspect(): Result<Inspection, NetlinkFault> {
    const state = this.#read();
    if (!state.ok) return state;
    const routing = this.#routingDifferences();
    if (!routing.ok) return routing;
    const { table } = state.value;
    if (table === null) return ok({ kind: "absent", leftovers: routing.value.present });
    const holder = holderOf(table);
    const mode = holder?.mode ?? "capture";
    const wanted = redirectRules(this.#options, findCgroups(this.#options.exclusions.cgroups).matches, "capture");
    const foreign = holder === null || holder.owner === "" ? [`the table is not stamped by us: ${JSON.stringify(table.comment)}`] : [];
    return ok({
      kind: "present",
      owner: holder?.owner ?? "",
      generation: holder?.generation ?? 0,
      mode,
      drift: [...foreign, ...differences(state.value, wanted), ...routing.value.missing],
      counters: countersOf(state.value.rules),
    });
  }

  /** Everything at one generation; read again when the rules changed meanwhile. */
  #read(): Result<State, NetlinkFault> {
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      const before = this.#generation();
      if (!before.ok) return before;
      const state = this.#readTable(before.value);
      const after = this.#generation();
      if (!after.ok) return after;
      // A table that went away between two of the questions is a refusal (ENOENT) that only the next reading explains.
      if (after.value === before.value) return state;
    }
    return err({ code: "netlink_refused", message: `the namespace's rules changed while they were read, ${ATTEMPTS} times`, blame: "us", dies: "nothing", retry: RETRY_NEVER, errno: ERESTART });
  }

  #readTable(kernelGeneration: number): Result<State, NetlinkFault> {
    const tables = this.#rules.dump({ object: "nf_tables tables", write: (writer, stamp) => writeGetTables(writer, stamp, NFPROTO_INET) }, readTable);
    if (!tables.ok) return tables;
    const table = tables.value.find(({ name, family }) => name === TABLE_NAME && family === NFPROTO_INET) ?? null;
    if (table === null) return ok({ kernelGeneration, table, chains: [], rules: [] });
    const chains = this.#rules.dump({ object: "nf_tables chains", write: (writer, stamp) => writeGetChains(writer, stamp, NFPROTO_INET) }, readChain);
    if (!chains.ok) return chains;
    const rules = this.#rules.dump({ object: "nf_tables rules", write: (writer, stamp) => writeGetRules(writer, stamp, TABLE_ID) }, readRule);
    if (!rules.ok) return rules;
    return ok({
      kernelGeneration,
      table,
      chains: chains.value.filter((chain) => chain.table === TABLE_NAME),
      rules: rules.value.filter((rule) => rule.table === TABLE_NAME),
    });
  }

  #generation(): Result<number, NetlinkFault> {
    const generation = this.#rules.get({ object: "the generation of the rules", write: writeGetGeneration }, readGeneration);
    return generation.ok ? ok(generation.value ?? 0) : generation;
  }

  /** One transaction: the old table away, the new one in its place. */
  #replace(to: { readonly state: State; readonly wanted: Ruleset; readonly mode: CaptureMode; readonly generation: number }): Result<void, NetlinkFault> {
    const { state, wanted } = to;
    const comment = `weft owner=${this.#options.owner} generation=${to.generation} mode=${to.mode}`;
    const table: Table = { family: NFPROTO_INET, name: TABLE_NAME, comment };
    const requests: NetlinkRequest[] = [];
    if (state.table !== null) requests.push({ object: `the old table ${TABLE_NAME}`, write: (writer, stamp) => writeDeleteTable(writer, stamp, table) });
    requests.push({ object: `table ${TABLE_NAME}`, write: (writer, stamp) => writeNewTable(writer, stamp, table) });
    for (const chain of wanted.chains) {
      requests.push({ object: `chain ${chain.name} (${chain.type} at ${chain.hook})`, write: (writer, stamp) => writeNewChain(writer, stamp, TABLE_ID, chain) });
    }
    for (const rule of wanted.rules) {
      requests.push({ object: `rule "${rule.comment}" in ${rule.chain}`, write: (writer, stamp) => writeNewRule(writer, stamp, TABLE_ID, rule) });
    }
    return this.#rules.batch(`table ${TABLE_NAME}`, requests, state.kernelGeneration);
  }

  /** What was left out, and why. */
  #ensureRouting(): Result<string[], NetlinkFault> {
    const notes: string[] = [];
    const loopback = this.#links.loopback();
    if (!loopback.ok) return loopback;
    for (const family of [4, 6] as const) {
      if (family === 6 && !this.#hasIpv6()) {
        notes.push("IPv6 is off in this namespace: nothing is set up for it");
        continue;
      }
      const ruled = this.#links.ensureRule(this.#replyRule(family));
      if (!ruled.ok) return ruled;
      const routed = this.#links.ensureRoute(this.#replyRoute(family, loopback.value));
      if (!routed.ok) return routed;
    }
    return ok(notes);
  }

  #removeRouting(): Result<void, NetlinkFault> {
    const loopback = this.#links.loopback();
    if (!loopback.ok) return loopback;
    for (const family of this.#families()) {
      const unruled = this.#links.deleteRule(this.#replyRule(family));
      if (!unruled.ok) return unruled;
      const unrouted = this.#links.deleteRoute(this.#replyRoute(family, loopback.value));
      if (!unrouted.ok) return unrouted;
    }
    // An agent that installed its table since we deleted ours found this routing in place and counts on it.
    const state = this.#read();
    if (!state.ok) return state;
    if (state.value.table === null) return ok(undefined);
    const again = this.#ensureRouting();
    return again.ok ? ok(undefined) : again;
  }

  #routingDifferences(): Result<{ present: string[]; missing: string[] }, NetlinkFault> {
    const present: string[] = [];
    const missing: string[] = [];
    const loopback = this.#links.loopback();
    if (!loopback.ok) return loopback;
    for (const family of this.#families()) {
      const rules = this.#links.rules(family);
      if (!rules.ok) return rules;
      const routes = this.#links.routes(family);
      if (!routes.ok) return routes;
      const rule = this.#replyRule(family);
      const hasRule = rules.value.some((found) => found.priority === rule.priority && found.mark === rule.mark && found.mask === rule.mask && found.table === rule.table);
      (hasRule ? present : missing).push(`IPv${family} routing rule ${rule.priority} for replies`);
      const route = this.#replyRoute(family, loopback.value);
      const hasRoute = routes.value.some((found) => found.table === route.table && found.type === "local" && found.to === null && found.linkIndex === route.linkIndex);
      (hasRoute ? present : missing).push(`IPv${family} local route in table ${route.table} for replies`);
    }
    return ok({ present, missing });
  }

  #replyRule(family: 4 | 6): MarkRule {
    const { connectionMark, rulePriority, routeTable } = this.#options;
    return { family, priority: rulePriority, mark: connectionMark.value, mask: connectionMark.mask, table: routeTable };
  }

  #replyRoute(family: 4 | 6, loopback: Link): Route {
    return { family, to: null, via: null, linkIndex: loopback.index, table: this.#options.routeTable, type: "local" };
  }

  #families(): (4 | 6)[] {
    return this.#hasIpv6() ? [4, 6] : [4];
  }

  /** Off in the kernel, or switched off on loopback, where redirected packets go. */
  #hasIpv6(): boolean {
    return readSysctl(this.#namespaceFd, "net.ipv6.conf.lo.disable_ipv6") === "0";
  }
}

/** Null when there is no table; an owner of "" when it is not stamped by us: nobody's, so it may be replaced. */
function holderOf(table: Table | null): Holder | null {
  if (table === null) return null;
  const stamp = STAMP.exec(table.comment);
  if (stamp === null) return null;
  return { owner: stamp[1]!, generation: Number(stamp[2]), mode: stamp[3] as CaptureMode };
}

/** What the kernel has and what was wanted, compared chain by chain and rule by rule in order. */
function differences(state: State, wanted: Ruleset): string[] {
  const found: string[] = [];
  for (const chain of wanted.chains) {
    const there = state.chains.find(({ name }) => name === chain.name);
    if (there === undefined) found.push(`chain ${chain.name} is missing`);
    else if (there.chain === null || !sameChain(there.chain, chain)) found.push(`chain ${chain.name} is of another kind`);
    found.push(...ruleDifferences(chain.name, rulesOf(state.rules, chain.name), rulesOf(wanted.rules, chain.name)));
  }
  for (const { name } of state.chains) {
    if (!wanted.chains.some((chain) => chain.name === name)) found.push(`chain ${name} is not wanted`);
  }
  return found;
}

function ruleDifferences(chain: string, present: readonly Rule[], wanted: readonly Rule[]): string[] {
  const found: string[] = [];
  for (let i = 0; i < Math.max(present.length, wanted.length); i++) {
    const [there, here] = [present[i], wanted[i]];
    if (there === undefined) found.push(`rule ${i + 1} of ${chain} ("${here!.comment}") is missing`);
    else if (here === undefined) found.push(`rule ${i + 1} of ${chain} ("${there.comment}") is not wanted`);
    else if (formatRule(there) !== formatRule(here)) found.push(`rule ${i + 1} of ${chain} is "${formatRule(there)}", wanted "${formatRule(here)}"`);
  }
  return found;
}

const rulesOf = (rules: readonly Rule[], chain: string): Rule[] => rules.filter((rule) => rule.chain === chain);
export const formatRule = (rule: Rule): string => `${rule.expressions.map(formatExpression).join("; ")} # ${rule.comment}`;
const sameChain = (a: Chain, b: Chain): boolean => a.type === b.type && a.hook === b.hook && a.priority === b.priority;

function countersOf(rules: readonly Rule[]): RuleCounter[] {
  return rules.flatMap(({ chain, comment, expressions }) => {
    const counter = expressions.find((e): e is Extract<Expression, { kind: "counter" }> => e.kind === "counter");
    return counter === undefined ? [] : [{ chain, comment, packets: counter.packets, bytes: counter.bytes }];
  });
}

function refused(attempt: string, cause: NetlinkFault): { ok: false; error: RedirectFault } {
  return err({ code: "redirect_refused", message: `cannot ${attempt}: ${cause.message}`, blame: cause.blame, dies: "nothing", retry: RETRY_NEVER, cause });
}

function superseded(holder: Holder): { ok: false; error: RedirectFault } {
  return fault("redirect_superseded", `the redirection was taken over by ${holder.owner} (generation ${holder.generation}); left as it is`, "us");
}

function fault(code: RedirectFault["code"], message: string, blame: RedirectFault["blame"]): { ok: false; error: RedirectFault } {
  return err({ code, message, blame, dies: "nothing", retry: RETRY_NEVER });
}
