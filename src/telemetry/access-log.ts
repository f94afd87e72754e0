// One line per connection, made by hand: text in the reference's form, or JSON. Values are escaped by log-text.ts; lines travel in
// batches by log-batch.ts.

import { formatProvenance, formatSeveral } from "../core/fault.ts";
import { formatSocketAddress } from "../core/ip.ts";
import type { Random } from "../core/ports.ts";
import type { Workload } from "../mesh/records.ts";
import type { DecisionRecord } from "./decision-record.ts";
import { LogBatch, type LogCredit, type PostLines } from "./log-batch.ts";
import { quoteJson, quoteText, timestamp } from "./log-text.ts";

export interface AccessLogOptions {
  readonly format: "off" | "text" | "json";
  /** Share of the clean connections that is logged; failures always are. */
  readonly sample: number;
  readonly random: Random;
  readonly post: PostLines;
  /** Shared with the writer, which gives back what it took; absent where both are one thread. */
  readonly credit?: LogCredit;
}

export class AccessLog {
  readonly #options: AccessLogOptions;
  readonly #batch: LogBatch;

  constructor(options: AccessLogOptions) {
    this.#options = options;
    this.#batch = new LogBatch(options.post, options.credit ?? null);
  }

  get madeCount(): number {
    return this.#batch.madeCount;
  }

  get droppedCount(): number {
    return this.#batch.droppedCount;
  }

  /** True when the record of such an end would be logged: ask before building one. */
  wants(failed: boolean): boolean {
    const { format, sample, random } = this.#options;
    return format !== "off" && (failed || sample >= 1 || (sample > 0 && random.next() < sample));
  }

  write(record: DecisionRecord): void {
    if (this.#batch.reserve()) this.#batch.add(this.#options.format === "json" ? formatJson(record) : formatText(record));
  }

  flush(): void {
    this.#batch.flush();
  }
}

/** Fields in the order of the reference's line, then ours. Ends in a newline. */
export function formatText(r: DecisionRecord): string {
  const failed = r.close.message !== "" || r.close.flags !== "-";
  let line = `${timestamp(r.closedMs)}\t${failed ? "error" : "info"}\taccess\tconnection complete\tsrc.addr=${formatSocketAddress(r.sourceAddress)}`;
  line += r.source === null ? peerText(r) : workloadText(r.source).asSource;
  if (r.sourceIdentity !== null) line += ` src.identity="${r.sourceIdentity}"`;
  if (r.destinationAddress !== null) line += ` dst.addr=${formatSocketAddress(r.hboneAddress ?? r.destinationAddress)}`;
  if (r.hboneAddress !== null && r.destinationAddress !== null) line += ` dst.hbone_addr=${formatSocketAddress(r.destinationAddress)}`;
  if (r.service !== null) line += ` dst.service=${quoteText(r.service.hostname)}`;
  if (r.destination !== null) line += workloadText(r.destination).asDestination;
  if (r.destinationIdentity !== null) line += ` dst.identity="${r.destinationIdentity}"`;
  line += ` direction="${directionOf(r)}" bytes_sent=${r.sentBytes} bytes_recv=${r.receivedBytes} duration="${Math.round(r.durationMs)}ms"`;
  if (r.connectMs !== null) line += ` connect="${Math.round(r.connectMs)}ms"`;
  if (r.nodeLocal) line += " node_local=true";
  if (r.decision !== null) {
    line += ` decision=${quoteText(r.decision.verdict)} reason=${quoteText(r.decision.reason)}`;
    if (r.decision.policies.length > 0) line += ` policy=${quoteText(formatSeveral(r.decision.policies, formatProvenance))}`;
  }
  line += ` close=${r.close.code}`;
  if (r.close.blame !== "none") line += ` blame=${r.close.blame}`;
  if (r.close.flags !== "-") line += ` flags=${r.close.flags}`;
  if (r.traceId !== null && r.traceId !== undefined) line += ` trace_id=${quoteText(r.traceId)}`;
  if (failed) line += ` error=${quoteText(r.close.message === "" ? r.close.code : r.close.message)}`;
  return `${line}\n`;
}

/** The same fields as one JSON object. */
export function formatJson(r: DecisionRecord): string {
  const failed = r.close.message !== "" || r.close.flags !== "-";
  let line = `{"level":"${failed ? "error" : "info"}","time":"${timestamp(r.closedMs)}","scope":"access","message":"connection complete","src.addr":"${formatSocketAddress(r.sourceAddress)}"`;
  line += r.source === null ? peerJson(r) : workloadJson(r.source).asSource;
  if (r.sourceIdentity !== null) line += `,"src.identity":"${r.sourceIdentity}"`;
  if (r.destinationAddress !== null) line += `,"dst.addr":"${formatSocketAddress(r.hboneAddress ?? r.destinationAddress)}"`;
  if (r.hboneAddress !== null && r.destinationAddress !== null) line += `,"dst.hbone_addr":"${formatSocketAddress(r.destinationAddress)}"`;
  if (r.service !== null) line += `,"dst.service":${quoteJson(r.service.hostname)}`;
  if (r.destination !== null) line += workloadJson(r.destination).asDestination;
  if (r.destinationIdentity !== null) line += `,"dst.identity":"${r.destinationIdentity}"`;
  line += `,"direction":"${directionOf(r)}","bytes_sent":${r.sentBytes},"bytes_recv":${r.receivedBytes},"duration":"${Math.round(r.durationMs)}ms"`;
  if (r.connectMs !== null) line += `,"connect":"${Math.round(r.connectMs)}ms"`;
  if (r.nodeLocal) line += ',"node_local":true';
  if (r.decision !== null) {
    line += `,"decision":${quoteJson(r.decision.verdict)},"reason":${quoteJson(r.decision.reason)}`;
    if (r.decision.policies.length > 0) line += `,"policy":${quoteJson(formatSeveral(r.decision.policies, formatProvenance))}`;
  }
  line += `,"close":"${r.close.code}"`;
  if (r.close.blame !== "none") line += `,"blame":"${r.close.blame}"`;
  if (r.close.flags !== "-") line += `,"flags":"${r.close.flags}"`;
  if (r.traceId !== null && r.traceId !== undefined) line += `,"trace_id":${quoteJson(r.traceId)}`;
  if (failed) line += `,"error":${quoteJson(r.close.message === "" ? r.close.code : r.close.message)}`;
  return `${line}}\n`;
}

/** The end of a connection that the store does not know, as its baggage describes it. */
function peerText(r: DecisionRecord): string {
  const peer = r.sourceDescription;
  return peer === null || peer === undefined ? "" : ` src.workload=${quoteText(peer.workloadName)} src.namespace=${quoteText(peer.namespace)}`;
}

function peerJson(r: DecisionRecord): string {
  const peer = r.sourceDescription;
  return peer === null || peer === undefined ? "" : `,"src.workload":${quoteJson(peer.workloadName)},"src.namespace":${quoteJson(peer.namespace)}`;
}

interface WorkloadFragment {
  readonly asSource: string;
  readonly asDestination: string;
}

/** Records are immutable: their part of the line is made once. */
const textFragments = new WeakMap<Workload, WorkloadFragment>();
const jsonFragments = new WeakMap<Workload, WorkloadFragment>();

function workloadText(workload: Workload): WorkloadFragment {
  let fragment = textFragments.get(workload);
  if (fragment === undefined) {
    const of = (side: string) => ` ${side}.workload=${quoteText(workload.name)} ${side}.namespace=${quoteText(workload.namespace)}`;
    textFragments.set(workload, (fragment = { asSource: of("src"), asDestination: of("dst") }));
  }
  return fragment;
}

function workloadJson(workload: Workload): WorkloadFragment {
  let fragment = jsonFragments.get(workload);
  if (fragment === undefined) {
    const of = (side: string) => `,"${side}.workload":${quoteJson(workload.name)},"${side}.namespace":${quoteJson(workload.namespace)}`;
    jsonFragments.set(workload, (fragment = { asSource: of("src"), asDestination: of("dst") }));
  }
  return fragment;
}

const directionOf = (r: DecisionRecord): string => (r.reporter === "source" ? "outbound" : "inbound");
