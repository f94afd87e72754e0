// What becomes of one question: refused, answered by the mesh, or forwarded. Pure but for what it is given.

import type { SocketAddress } from "../../core/ip.ts";
import { type NameAnswer, type NameScope, resolveName } from "../../policy/resolve-name.ts";
import { decodeMessage, readHeaderOnly } from "../../wire/dns/decode.ts";
import { encodeMessage } from "../../wire/dns/encode.ts";
import { type DnsMessage, type Edns, MESSAGE_BYTES_MAX, udpBytesOf } from "../../wire/dns/message.ts";
import { OPCODE_QUERY, ResponseCode } from "../../wire/dns/types.ts";
import { type DnsLabels, dnsLabels, type DnsProtocol, type DnsRefusal, ZONE_TRANSFERS } from "./metrics.ts";

/** What we take over UDP ourselves: no fragments on any path (the DNS flag day of 2020). */
const OUR_UDP_BYTES = 1232;
/** The most a UDP datagram carries. */
export const UDP_PAYLOAD_BYTES_MAX = 65_507;

export type QueryOutcome =
  /** Not worth a word: no header, or itself an answer (two servers that answer each other's errors never stop). */
  | { readonly kind: "drop"; readonly reason: DnsRefusal }
  | { readonly kind: "refuse"; readonly reason: DnsRefusal; readonly reply: Uint8Array }
  | { readonly kind: "answer"; readonly labels: DnsLabels; readonly reply: Uint8Array }
  /** `known`: the name is ours, so it exists, whatever upstream says. */
  | { readonly kind: "forward"; readonly labels: DnsLabels; readonly message: DnsMessage; readonly known: boolean };

/**
 * @param scope null while the workload is not known to the mesh: then everything is forwarded.
 * @param bytes one message; borrowed.
 */
export function judgeQuery(bytes: Uint8Array, protocol: DnsProtocol, scope: NameScope | null): QueryOutcome {
  const header = readHeaderOnly(bytes);
  if (header === null) return { kind: "drop", reason: "malformed" };
  if (header.response) return { kind: "drop", reason: "not a query" };
  const read = decodeMessage(bytes);
  if (header.opcode !== OPCODE_QUERY) return refuse("not implemented", bare(bytes, ResponseCode.NOTIMP));
  const [question, second] = read.ok ? read.value.questions : [];
  if (!read.ok || question === undefined || second !== undefined) return refuse("malformed", bare(bytes, ResponseCode.FORMERR));
  const message = read.value;
  if (ZONE_TRANSFERS.has(question.type)) return refuse("zone transfer", errorReply(message, ResponseCode.REFUSED));
  const labels = dnsLabels(question.type, protocol);
  const answer: NameAnswer = scope === null ? { kind: "forward", known: false } : resolveName(scope, question);
  if (answer.kind === "forward") return { kind: "forward", labels, message, known: answer.known };
  if (message.edns !== null && message.edns.version !== 0) return { kind: "answer", labels, reply: errorReply(message, ResponseCode.BADVERS) };
  const reply: DnsMessage = {
    ...answering(message, ResponseCode.NOERROR),
    authoritative: true,
    answers: answer.kind === "answer" ? answer.records : [],
    additionals: answer.kind === "answer" ? answer.additionals : [],
  };
  return { kind: "answer", labels, reply: encodeMessage(reply, replyBytesMax(message, protocol)) };
}

/** Largest answer this client takes. */
export function replyBytesMax(query: DnsMessage, protocol: DnsProtocol): number {
  return protocol === "tcp" ? MESSAGE_BYTES_MAX : Math.min(udpBytesOf(query.edns), UDP_PAYLOAD_BYTES_MAX);
}

/** SERVFAIL and its like, for a query that was understood. */
export function errorReply(query: DnsMessage, code: number): Uint8Array {
  return encodeMessage(answering(query, code));
}

/** Our OPT record for a client that sent one. */
export function ourEdns(query: DnsMessage): Edns | null {
  return query.edns === null ? null : { udpBytes: OUR_UDP_BYTES, version: 0, dnssecOk: query.edns.dnssecOk, extendedRcode: 0, options: new Uint8Array(0) };
}

function answering(query: DnsMessage, code: number): DnsMessage {
  const edns = ourEdns(query);
  return {
    id: query.id, response: true, opcode: query.opcode, authoritative: false, truncated: false, recursionDesired: query.recursionDesired,
    recursionAvailable: true, authenticData: false, checkingDisabled: query.checkingDisabled, rcode: code & 0xf, questions: query.questions,
    answers: [], authorities: [], additionals: [], edns: edns === null ? null : { ...edns, extendedRcode: code >> 4 },
  };
}

const refuse = (reason: DnsRefusal, reply: Uint8Array): QueryOutcome => ({ kind: "refuse", reason, reply });

/** An error without the question: it could not be read. */
function bare(query: Uint8Array, code: number): Uint8Array {
  return Uint8Array.of(query[0]!, query[1]!, 0x80 | (query[2]! & 0x79), 0x80 | code, 0, 0, 0, 0, 0, 0, 0, 0);
}

/** An upstream that is the proxy itself would be asked for ever. */
export function isOurselves(upstream: SocketAddress, listenPort: number): boolean {
  const loopback = upstream.ip === "::1" || upstream.ip.startsWith("127.") || upstream.ip === "0.0.0.0" || upstream.ip === "::";
  return upstream.port === listenPort && loopback;
}
