// What a request brings for its trace and its log: traceparent, tracestate, B3, x-request-id, grpc-status, grpc-message, and the commands
// of a log's format. Nothing throws whatever the bytes; what is passed on is well-formed and of one trace; lines stay lines.

import type { Random } from "../../src/core/ports.ts";
import { compileLogFormat, defaultLogFormat } from "../../src/telemetry/log-format.ts";
import { KeptFields } from "../../src/telemetry/request-record.ts";
import { readTrace, requestIdOf } from "../../src/telemetry/request-trace.ts";
import { request } from "../../src/telemetry/telemetry-fixtures.ts";
import { GrpcMessageCounter } from "../../src/wire/grpc/message-counter.ts";
import { decodeGrpcMessage, GRPC_MESSAGE_CHARS_MAX, parseGrpcStatusField } from "../../src/wire/grpc/status.ts";
import { ListFields } from "../../src/wire/http/fields.ts";
import { fullTraceId, readB3 } from "../../src/wire/trace/b3.ts";
import { IdSource, isRequestId } from "../../src/wire/trace/ids.ts";
import { decodeTraceparent } from "../../src/wire/trace/traceparent.ts";
import { readTracestate, TRACESTATE_CHARS_MAX } from "../../src/wire/trace/tracestate.ts";
import { below, pick } from "./choices.ts";
import type { FuzzRun } from "./fuzz.ts";
import { iterate } from "./iterate.ts";

export const name = "trace";

export function run(fuzzRun: FuzzRun) {
  let ids: IdSource | null = null;
  return iterate(fuzzRun, (random, i) => {
    ids ??= new IdSource((target) => target.forEach((_, at) => (target[at] = below(random, 256))));
    properties[i % properties.length]!(random, ids);
  });
}

const properties: readonly ((random: Random, ids: IdSource) => void)[] = [anyContextGoesOn, anyTracestateIsRead, anyMessageIsRead, anyBodyIsCounted, anyLineIsOne];

function soup(random: Random, pieces: readonly string[], piecesMax: number, chars: number): string {
  let text = "";
  for (let n = below(random, piecesMax); n > 0; n--) text += random.next() < 0.8 ? pick(random, pieces) : String.fromCharCode(below(random, chars));
  return text;
}

const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN = "00f067aa0ba902b7";
const values: Readonly<Record<string, readonly string[]>> = {
  traceparent: [`00-${TRACE}-${SPAN}-01`, `00-${TRACE}-${SPAN}-00`, `cc-${TRACE}-${SPAN}-01-x`, `ff-${TRACE}-${SPAN}-01`, `00-${"0".repeat(32)}-${SPAN}-01`],
  tracestate: ["a=1", "a=1,b=2", "A=1", "a=1,a=2", ""],
  b3: [`${TRACE}-${SPAN}-1`, `${SPAN}-${SPAN}-d-${SPAN}`, `${TRACE}-${SPAN}`, "0", "1", "d", `${TRACE}-${SPAN}-0`],
  "x-b3-traceid": [TRACE, SPAN, "0".repeat(32)], "x-b3-spanid": [SPAN, "0".repeat(16)], "x-b3-parentspanid": [SPAN, "x"], "x-b3-sampled": ["0", "1", "true", "2"], "x-b3-flags": ["0", "1", "2"],
  "x-request-id": ["a", "a b", "x".repeat(200)],
};

function anyContextGoesOn(random: Random, ids: IdSource): void {
  const list: string[] = [];
  for (let n = below(random, 6); n > 0; n--) {
    const field = pick(random, Object.keys(values));
    let value = pick(random, values[field]!);
    if (random.next() < 0.3) value = mutate(random, value).replace(/[^\x20-\x7e]/g, "").trim();
    list.push(field, value);
  }
  const fields = new ListFields(list);
  const before = new ListFields([...list]);
  const settings = random.next() < 0.3 ? null : { sampling: random.next() };
  if (!isRequestId(requestIdOf(fields, () => "made"))) throw new Error("a bad request id");
  const trace = readTrace(fields, settings, ids);
  if (trace === null) {
    if (settings !== null) throw new Error("no trace where one should begin");
    return;
  }
  if (!/^[0-9a-f]{32}$/.test(trace.traceId) || (trace.sampled ? !/^[0-9a-f]{16}$/.test(trace.spanId) : trace.spanId !== "")) throw new Error(`ids ${trace.traceId} ${trace.spanId}`);
  trace.writeAttempt(fields, trace.attemptId());
  const came = decodeTraceparent(before.value("traceparent") ?? "");
  const sent = decodeTraceparent(fields.value("traceparent") ?? "");
  if (came !== null && (sent?.traceId !== came.traceId || sent.sampled !== (came.sampled && settings !== null ? true : came.sampled))) throw new Error(`${JSON.stringify(list)} went on as ${fields.value("traceparent")}`);
  if (trace.sampled && (sent?.traceId !== trace.traceId || sent.parentId !== trace.attemptSpanId || !sent.sampled)) throw new Error(`sampled, but sent ${fields.value("traceparent")}`);
  const b3 = readB3(before);
  const b3Sent = readB3(fields);
  if (b3 !== null && b3.ids !== null && (b3Sent === null || b3Sent.ids === null || fullTraceId(b3Sent.ids.traceId) !== fullTraceId(b3.ids.traceId))) throw new Error(`B3 of ${JSON.stringify(list)} was lost`);
}

function anyTracestateIsRead(random: Random): void {
  const lines = Array.from({ length: below(random, 4) }, () => soup(random, ["a", "b1", "=", "=", ",", ",", "@", " ", "\t", "-", "_", "*", "/", "v", "x".repeat(300)], 30, 256));
  const read = readTracestate(lines);
  if (read === null) return;
  if (read.length > TRACESTATE_CHARS_MAX || !/^[\x20-\x7e]+$/.test(read)) throw new Error(`accepted ${JSON.stringify(read)}`);
  if (readTracestate([read]) !== read) throw new Error(`${JSON.stringify(read)} is not its own normal form`);
}

function anyMessageIsRead(random: Random): void {
  const message = decodeGrpcMessage(soup(random, ["%", "%4", "%41", "%C3%A9", "%FF", "%00", "word ", "x".repeat(500)], 40, 256));
  if (message.length > GRPC_MESSAGE_CHARS_MAX || !message.isWellFormed()) throw new Error(`a message of ${message.length}`);
  const status = parseGrpcStatusField(soup(random, ["0", "1", "6", "7", " ", ","], 4, 128));
  if (status === null || !(status >= 0 && status <= 16)) throw new Error(`status ${status}`);
}

/** The same count whatever the chunks. */
function anyBodyIsCounted(random: Random): void {
  const parts: number[] = [];
  let count = 0;
  for (let n = below(random, 6); n > 0; n--) {
    const length = below(random, 300);
    const isTrailers = random.next() < 0.1;
    if (!isTrailers) count++;
    parts.push(isTrailers ? 0x80 : below(random, 2), 0, 0, length >> 8, length & 255, ...Array.from({ length }, () => below(random, 256)));
  }
  const body = Uint8Array.from(parts);
  const counter = new GrpcMessageCounter();
  for (let at = 0; at < body.length;) {
    const end = at + 1 + below(random, 40);
    counter.push(body.subarray(at, end));
    at = end;
  }
  if (counter.count !== count) throw new Error(`${counter.count} messages instead of ${count}`);
}

const commandPieces = ["%", "%%", "%REQ(", ":PATH", "?", ")%", "%RESPONSE_CODE%", "%REQ(X?:METHOD):3%", "%WEFT(", "detail)%", ":5%", "%START_TIME(%s)%", "(", ")", "\"", "\\", " "];

function anyLineIsOne(random: Random): void {
  const hostile = () => soup(random, ['"', "\\", "\n", "\r", "\u2028", "\ud800", "x", "?", "=", "%41"], 12, 0x300);
  const record = request({
    method: hostile(), path: hostile(), query: hostile(), host: hostile(), pathReceived: hostile(), requestId: hostile(), detail: hostile(), grpcMessage: hostile(), ruleName: hostile(),
    requestFields: new KeptFields(["user-agent", "x-forwarded-for", "x"], [hostile(), hostile(), hostile()]),
  });
  const options = { query: random.next() < 0.5 ? "full" : "redacted" } as const;
  const format = soup(random, commandPieces, 12, 128).replace(/[\x00-\x1f\x7f]/g, "");
  for (const compiled of [defaultLogFormat("text", options), compileLogFormat({ kind: "text", line: format }, options)]) {
    const line = compiled.line(record, 1);
    if (line.indexOf("\n") !== line.length - 1 || !/^[\x20-\x7e]*\n$/.test(line)) throw new Error(`more than a line: ${JSON.stringify(line)}`);
  }
  for (const compiled of [defaultLogFormat("json", options), compileLogFormat({ kind: "json", fields: [[hostile(), format], ["b", "%REQ(X)%"]] }, options)]) {
    const line = compiled.line(record, 1);
    if (line.indexOf("\n") !== line.length - 1) throw new Error(`more than a line: ${JSON.stringify(line)}`);
    JSON.parse(line);
  }
}

function mutate(random: Random, text: string): string {
  const at = below(random, text.length + 1);
  const char = random.next() < 0.5 ? pick(random, ["-", "0", "f", "F", " "]) : String.fromCharCode(below(random, 128));
  switch (below(random, 3)) {
    case 0: return text.slice(0, at) + char + text.slice(at);
    case 1: return text.slice(0, at) + text.slice(at + 1);
    default: return text.slice(0, at) + char + text.slice(at + 1);
  }
}
