// The server name that a TLS client asks for, out of the first bytes of its connection: for routing TLS that is passed through. Reads the
// records and the ClientHello (RFC 8446, sections 4.1.2 and 5.1) as far as the server_name extension (RFC 6066, section 3), and no more.

/** A ClientHello with post-quantum key shares and tickets has a few kilobytes; nobody needs more than one handshake message may sensibly hold. */
export const CLIENT_HELLO_BYTES_MAX = 64 * 1024;

export type ServerNameRead =
  /** More bytes are needed. */
  | { readonly kind: "incomplete" }
  /** A whole ClientHello. `name` in lower case; null when it asks for none. */
  | { readonly kind: "clientHello"; readonly name: string | null }
  /** No TLS, or a ClientHello that cannot be read. */
  | { readonly kind: "other"; readonly why: string };

const HANDSHAKE_RECORD = 22;
const RECORD_HEADER_BYTES = 5;
/** RFC 8446, section 5.1: plaintext records. */
const RECORD_BYTES_MAX = 1 << 14;
const CLIENT_HELLO = 1;
const MESSAGE_HEADER_BYTES = 4;
const VERSION_AND_RANDOM_BYTES = 34;
const SERVER_NAME_EXTENSION = 0;
const HOST_NAME = 0;
/** RFC 1035, section 2.3.4. */
const NAME_CHARS_MAX = 253;

const INCOMPLETE: ServerNameRead = Object.freeze({ kind: "incomplete" });
const other = (why: string): ServerNameRead => ({ kind: "other", why });

/** @param bytes all that the client has sent; borrowed. */
export function readServerName(bytes: Uint8Array): ServerNameRead {
  const gathered = gatherMessage(bytes);
  if (!("message" in gathered)) return gathered;
  const cursor = new Cursor(gathered.message);
  cursor.skip(VERSION_AND_RANDOM_BYTES);
  cursor.skip(cursor.number(1));
  cursor.skip(cursor.number(2));
  cursor.skip(cursor.number(1));
  // Before TLS 1.3 a ClientHello may end here.
  if (!cursor.failed && cursor.left === 0) return { kind: "clientHello", name: null };
  const extensions = cursor.take(cursor.number(2));
  while (!extensions.failed && extensions.left > 0) {
    const type = extensions.number(2);
    const extension = extensions.take(extensions.number(2));
    if (type === SERVER_NAME_EXTENSION && !extension.failed) return nameIn(extension);
  }
  return cursor.failed || extensions.failed ? other("its ClientHello is cut short") : { kind: "clientHello", name: null };
}

function nameIn(extension: Cursor): ServerNameRead {
  const names = extension.take(extension.number(2));
  while (!names.failed && names.left > 0) {
    const type = names.number(1);
    const name = names.take(names.number(2));
    if (names.failed || type !== HOST_NAME) continue;
    const text = name.text().toLowerCase();
    const trimmed = text.endsWith(".") ? text.slice(0, -1) : text;
    if (trimmed === "" || trimmed.length > NAME_CHARS_MAX || !/^[a-z0-9._-]+$/.test(trimmed)) return other("the name it asks for is no host name");
    return { kind: "clientHello", name: trimmed };
  }
  return other("its list of names is broken");
}

/** The ClientHello out of its records: it may be spread over several. */
function gatherMessage(bytes: Uint8Array): { readonly message: Uint8Array } | ServerNameRead {
  const parts: Uint8Array[] = [];
  let have = 0;
  let want = -1;
  let at = 0;
  while (want < 0 || have < want) {
    if (at === bytes.length) return INCOMPLETE;
    if (bytes[at] !== HANDSHAKE_RECORD) return other("its first bytes are no TLS handshake");
    // The version of the record says nothing, but its first half is 3 in all of them.
    if (at + 1 < bytes.length && bytes[at + 1] !== 3) return other("its first bytes are no TLS handshake");
    if (at + RECORD_HEADER_BYTES > bytes.length) return INCOMPLETE;
    const length = bytes[at + 3]! * 256 + bytes[at + 4]!;
    if (length === 0 || length > RECORD_BYTES_MAX) return other(`a TLS record of ${length} bytes`);
    const part = bytes.subarray(at + RECORD_HEADER_BYTES, at + RECORD_HEADER_BYTES + length);
    if (have === 0 && part.length > 0 && part[0] !== CLIENT_HELLO) return other("a TLS handshake that begins with no ClientHello");
    parts.push(part);
    have += part.length;
    if (want < 0 && have >= MESSAGE_HEADER_BYTES) {
      const head = parts.length === 1 ? part : Buffer.concat(parts);
      want = MESSAGE_HEADER_BYTES + head[1]! * 65_536 + head[2]! * 256 + head[3]!;
      if (want > CLIENT_HELLO_BYTES_MAX) return other(`a ClientHello of ${want} bytes, at most ${CLIENT_HELLO_BYTES_MAX} are read`);
    }
    if (part.length < length && (want < 0 || have < want)) return INCOMPLETE;
    at += RECORD_HEADER_BYTES + length;
  }
  const whole = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  return { message: whole.subarray(MESSAGE_HEADER_BYTES, want) };
}

/** Reads forward and never past the end; once something was missing it has failed, and everything reads as nothing. */
class Cursor {
  failed = false;
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  number(size: 1 | 2): number {
    if (this.left < size) return this.#fail(), 0;
    let value = 0;
    for (let i = 0; i < size; i++) value = value * 256 + this.#bytes[this.#at++]!;
    return value;
  }

  skip(count: number): void {
    this.take(count);
  }

  take(count: number): Cursor {
    if (this.failed || this.left < count) {
      this.#fail();
      const nothing = new Cursor(this.#bytes.subarray(0, 0));
      nothing.failed = true;
      return nothing;
    }
    const part = new Cursor(this.#bytes.subarray(this.#at, this.#at + count));
    this.#at += count;
    return part;
  }

  text(): string {
    let text = "";
    for (const byte of this.#bytes) text += String.fromCharCode(byte);
    return text;
  }

  #fail(): void {
    this.failed = true;
  }
}
