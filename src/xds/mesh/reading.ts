// Reading of messages field by field: what is wrong is collected, so that a refusal names everything at once. A reader that met a problem
// returns something of the right type; its caller looks at `problems` before anything is used.

import { parseCidr, type Cidr, type IpAddress, ipFromBytes } from "../../core/ip.ts";
import { namespacedName, type NamespacedName } from "../../core/brand.ts";

/** Problems told of one resource: the first ones explain it, and the text goes back to the server. */
const PROBLEMS_MAX = 8;
const NO_CIDR: Cidr = { family: 4, bytes: new Uint8Array(4), prefixLength: 32 };
/** Namespaces, service accounts: what a SPIFFE ID can hold. */
const SEGMENT = /^[A-Za-z0-9._-]{1,253}$/;

export class Reading {
  readonly #problems: string[] = [];

  problem(field: string, text: string): void {
    if (this.#problems.length < PROBLEMS_MAX) this.#problems.push(`${field}: ${text}`);
  }

  /** Null when nothing was wrong. */
  get problems(): string | null {
    return this.#problems.length === 0 ? null : this.#problems.join("; ");
  }

  /** @param names by number on the wire. */
  enumeration<T extends string>(field: string, value: number, names: readonly [T, ...T[]]): T {
    const name = names[value];
    if (name === undefined) this.problem(field, `${value} is not a value that is known, wanted ${names.map((one, i) => `${i} (${one})`).join(", ")}`);
    return name ?? names[0];
  }

  segment(field: string, text: string): string {
    if (!SEGMENT.test(text) || text === "." || text === "..") this.problem(field, `found ${JSON.stringify(text)}, wanted letters, digits, dots, hyphens and underscores`);
    return text;
  }

  port(field: string, value: number, least: 0 | 1): number {
    if (value < least || value > 65_535) this.problem(field, `found ${value}, wanted a port from ${least} to 65535`);
    return value;
  }

  address(field: string, bytes: Uint8Array): IpAddress {
    if (bytes.length === 4 || bytes.length === 16) return ipFromBytes(bytes);
    this.problem(field, `found ${bytes.length} bytes, wanted an address of 4 or 16`);
    return ipFromBytes(NO_CIDR.bytes);
  }

  /** @param length null for one address. */
  cidr(field: string, bytes: Uint8Array, length: number | null): Cidr {
    if (bytes.length !== 4 && bytes.length !== 16) {
      this.problem(field, `found ${bytes.length} bytes, wanted an address of 4 or 16`);
      return NO_CIDR;
    }
    // Written as IPv6 even where it is an IPv4-mapped one, so that the length means what it meant to the sender.
    const address = bytes.length === 4 ? ipFromBytes(bytes) : groups(bytes);
    const cidr = parseCidr(length === null ? address : `${address}/${length}`);
    if (cidr === null) this.problem(field, `found a prefix of ${length} bits of an address of ${bytes.length * 8}`);
    return cidr ?? NO_CIDR;
  }

  /** `namespace/name` with one slash. */
  namespacedName(field: string, text: string): NamespacedName {
    const slash = text.indexOf("/");
    if (slash <= 0 || slash === text.length - 1 || text.indexOf("/", slash + 1) >= 0) this.problem(field, `found ${JSON.stringify(text)}, wanted namespace/name`);
    return namespacedName(text.slice(0, Math.max(0, slash)), text.slice(slash + 1));
  }
}

function groups(bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Array.from({ length: 8 }, (_, i) => view.getUint16(2 * i).toString(16)).join(":");
}
