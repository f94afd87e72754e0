// A client that writes the fields of an HTTP/2 request as they are, allowed or not.

import { Flag, FrameType } from "../../src/wire/http2/frames.ts";
import { headerPairs } from "../../src/wire/http/header-list.ts";
import { data, frame, Http2Peer } from "../kit/http2-peer.ts";
import { until } from "../kit/until.ts";
import type { RawHttp2Request } from "./description.ts";
import { type Answer, NO_ANSWER } from "./raw-client.ts";

const ANSWER_MS = 4_000;
/** The first of a client's. */
const STREAM = 1;

/** The answer; status 0 where stream or connection ended without one: which of the two does not matter here, and Envoy ends more. */
export async function converse2Raw(port: number, { fields, body, trailers }: RawHttp2Request): Promise<Answer> {
  using peer = await Http2Peer.plain(port);
  const head = (list: readonly string[], isLast: boolean): Uint8Array => frame(FrameType.headers, Flag.endHeaders | (isLast ? Flag.endStream : 0), STREAM, block(list));
  peer.write(head(fields, body === undefined && trailers === undefined));
  if (body !== undefined) peer.write(data(STREAM, Buffer.from(body, "latin1"), trailers === undefined));
  if (trailers !== undefined) peer.write(head(trailers, true));
  await peer.answer(STREAM);
  const list = peer.firstAnswer(STREAM);
  if (list === null) return NO_ANSWER;
  await until("the end of the answer", ANSWER_MS, () => peer.hasEnded(STREAM) || peer.resetCode(STREAM) !== null);
  const pairs = headerPairs(list);
  return { status: Number(pairs.find(([name]) => name === ":status")![1]), headers: pairs.filter(([name]) => name !== ":status"), body: peer.bodyOf(STREAM), interim: [], trailers: [] };
}

/** Each field a literal that is not kept, its bytes as they are (RFC 7541, section 6.2.2): an encoder of ours would refuse them. */
function block(fields: readonly string[]): Buffer {
  const parts: Buffer[] = [];
  for (const [name, value] of headerPairs(fields)) parts.push(Buffer.of(0), text(name), text(value));
  return Buffer.concat(parts);
}

/** A string without Huffman code: its length in seven bits and what is left of it in groups of seven, then itself (sections 5.1, 5.2). */
function text(latin1: string): Buffer {
  const bytes = Buffer.from(latin1, "latin1");
  const length = [Math.min(bytes.length, 127)];
  if (bytes.length >= 127) {
    let rest = bytes.length - 127;
    for (; rest >= 128; rest >>= 7) length.push((rest & 127) | 128);
    length.push(rest);
  }
  return Buffer.concat([Buffer.from(length), bytes]);
}
