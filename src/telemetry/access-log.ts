// One line per connection, made by hand: text in the reference's form, or JSON. Everything that came from outside is escaped,
// so that no name can forge a line or a field. Lines are gathered and handed on in batches; when they are made faster than
// they are taken, they are dropped and counted. Never waits.

import { formatProvenance } from "../core/fault.ts";
import { formatSocketAddress } from "../core/ip.ts";
import type { Random } from "../core/ports.ts";
import type { Workload } from "../mesh/records.ts";
import type { DecisionRecord } from "./decision-record.ts";

/** Lines kept between two flushes; at one flush per 100 ms this is 20 000 lines a second. */
export const BATCH_LINES_MAX = 2_000;
/** Characters handed on and not yet taken by the writer. */
export const IN_FLIGHT_CHARS_MAX = 4 * 1024 * 1024;
/** A longer value is cut: it came from outside. */
export const VALUE_CHARS_MAX = 1024;

export interface AccessLogOptions {
  readonly format: "off" | "text" | "json";
  /** Share of the clean connections that is logged; failures always are. */
  readonly sample: number;
  readonly random: Random;
  readonly post: (lines: string, lineCount: number) => void;
  /** Shared with the writer, which gives back what it took; absent where both are one thread. */
  readonly credit?: LogCredit;
}

export class AccessLog {
  readonly #options: AccessLogOptions;
  #lines = "";
  #lineCount = 0;
  /** Lines made, and lines dropped for want of room. Cumulative. */
  madeCount = 0;
  droppedCount = 0;

  constructor(options: AccessLogOptions) {
    this.#options = options;
  }

  /** True when the record of such an end would be logged: ask before building one. */
  wants(failed: boolean): boolean {
    const { format, sample, random } = this.#options;
    return format !== "off" && (failed || sample >= 1 || (sample > 0 && random.next() < sample));
  }

  write(record: DecisionRecord): void {
    if (this.#lineCount >= BATCH_LINES_MAX) {
      this.droppedCount++;
      return;
    }
    this.madeCount++;
    this.#lineCount++;
    this.#lines += this.#options.format === "json" ? formatJson(record) : formatText(record);
  }

  flush(): void {
    if (this.#lineCount === 0) return;
    const { credit, post } = this.#options;
    if (credit !== undefined && !credit.take(this.#lines.length)) this.droppedCount += this.#lineCount;
    else post(this.#lines, this.#lineCount);
    this.#lines = "";
    this.#lineCount = 0;
  }
}

/** Characters under way between a data thread and the writer: one shared number, so that neither waits for the other. */
export class LogCredit {
  readonly #inFlight: Int32Array;

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(4)) {
    this.#inFlight = new Int32Array(buffer);
  }

  get buffer(): SharedArrayBuffer {
    return this.#inFlight.buffer as SharedArrayBuffer;
  }

  /** False when too much is under way already. */
  take(chars: number): boolean {
    if (Atomics.load(this.#inFlight, 0) + chars > IN_FLIGHT_CHARS_MAX) return false;
    Atomics.add(this.#inFlight, 0, chars);
    return true;
  }

  giveBack(chars: number): void {
    Atomics.sub(this.#inFlight, 0, chars);
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
    if (r.decision.policy !== null) line += ` policy=${quoteText(formatProvenance(r.decision.policy))}`;
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
    if (r.decision.policy !== null) line += `,"policy":${quoteJson(formatProvenance(r.decision.policy))}`;
  }
  line += `,"close":"${r.close.code}"`;
  if (r.close.blame !== "none") line += `,"blame":"${r.close.blame}"`;
  if (r.close.flags !== "-") line += `,"flags":"${r.close.flags}"`;
  if (r.traceId !== null && r.traceId !== undefined) line += `,"trace_id":${quoteJson(r.traceId)}`;
  if (failed) line += `,"error":${quoteJson(r.close.message === "" ? r.close.code : r.close.message)}`;
  return `${line}}\n`;
}

export function quoteText(text: string): string {
  return `"${escaped(text)}"`;
}

/** Escaped alike: what `escaped` makes is valid inside a JSON string too. */
export function quoteJson(text: string): string {
  return `"${escaped(text)}"`;
}

/** Quotes, backslashes, control characters, line separators and lone surrogates cannot leave the string they stand in. */
function escaped(text: string): string {
  const short = text.length > VALUE_CHARS_MAX ? `${text.slice(0, VALUE_CHARS_MAX)}...` : text;
  return UNSAFE.test(short) ? short.replace(UNSAFE_ALL, escapeUnit) : short;
}

const UNSAFE = /[^\x20\x21\x23-\x5b\x5d-\x7e]/;
const UNSAFE_ALL = /[^\x20\x21\x23-\x5b\x5d-\x7e]/g;

function escapeUnit(unit: string): string {
  if (unit === '"' || unit === "\\") return `\\${unit}`;
  if (unit === "\n") return "\\n";
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
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

let stampMs = Number.NaN;
let stamp = "";

/** Many lines end in the same millisecond; formatting the date costs more than the rest of the line. */
export function timestamp(wallMs: number): string {
  const ms = Math.floor(wallMs);
  if (ms !== stampMs) {
    stampMs = ms;
    stamp = new Date(ms).toISOString();
  }
  return stamp;
}

