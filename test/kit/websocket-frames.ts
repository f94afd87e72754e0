// WebSocket frames as bytes (RFC 6455, section 5), well formed or not, and a transcript of those that came back.

export const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

export interface FrameOptions {
  readonly fin?: boolean;
  /** Clients must; false for one that does not. */
  readonly mask?: boolean;
  /** Reserved bits, 1 to 7. */
  readonly rsv?: number;
  /** Another length than the payload has. */
  readonly length?: number;
}

const KEY = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);

export function frame(opcode: number, payload: Uint8Array | string = "", { fin = true, mask = true, rsv = 0, length }: FrameOptions = {}): Buffer {
  const bytes = typeof payload === "string" ? Buffer.from(payload) : Buffer.from(payload);
  const size = length ?? bytes.length;
  const extended = size < 126 ? Buffer.alloc(0) : size < 65536 ? Buffer.alloc(2) : Buffer.alloc(8);
  if (extended.length === 2) extended.writeUInt16BE(size);
  else if (extended.length === 8) extended.writeBigUInt64BE(BigInt(size));
  const head = Buffer.from([(fin ? 0x80 : 0) | (rsv << 4) | opcode, (mask ? 0x80 : 0) | (size < 126 ? size : size < 65536 ? 126 : 127)]);
  if (!mask) return Buffer.concat([head, extended, bytes]);
  for (let i = 0; i < bytes.length; i++) bytes[i]! ^= KEY[i & 3]!;
  return Buffer.concat([head, extended, KEY, bytes]);
}

export function closeFrame(code?: number, reason = ""): Buffer {
  if (code === undefined) return frame(OPCODE.close);
  const payload = Buffer.concat([Buffer.alloc(2), Buffer.from(reason)]);
  payload.writeUInt16BE(code);
  return frame(OPCODE.close, payload);
}

/** `text 5 fin hello`, or a hash of what is long; what is left over at the end is told too. */
export function transcript(bytes: Buffer): string[] {
  const lines: string[] = [];
  let at = 0;
  while (at + 2 <= bytes.length) {
    const first = bytes[at]!;
    const short = bytes[at + 1]! & 0x7f;
    const sizeBytes = short === 126 ? 2 : short === 127 ? 8 : 0;
    const masked = (bytes[at + 1]! & 0x80) !== 0;
    const from = at + 2 + sizeBytes + (masked ? 4 : 0);
    if (from > bytes.length) break;
    const size = sizeBytes === 0 ? short : sizeBytes === 2 ? bytes.readUInt16BE(at + 2) : Number(bytes.readBigUInt64BE(at + 2));
    if (from + size > bytes.length) break;
    const payload = bytes.subarray(from, from + size);
    const opcode = first & 15;
    const name = Object.entries(OPCODE).find(([, code]) => code === opcode)?.[0] ?? `opcode ${opcode}`;
    const shown = opcode === OPCODE.close && size >= 2 ? `${payload.readUInt16BE(0)} ${payload.subarray(2).toString()}` : size > 64 ? `#${Bun.hash(payload).toString(36)}` : payload.toString("latin1");
    lines.push(`${name} ${size}${(first & 0x80) === 0 ? " more" : ""}${masked ? " masked" : ""} ${shown}`.trimEnd());
    at = from + size;
  }
  if (at < bytes.length) lines.push(`${bytes.length - at} bytes of no whole frame`);
  return lines;
}
