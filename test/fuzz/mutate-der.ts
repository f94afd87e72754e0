// Mutations of DER: of the bytes, which mostly end at the first length; and of the tree, with every length made right again, which
// reach the checks behind.

import type { Random } from "../../src/core/ports.ts";
import { encode } from "../../src/wire/x509/der.ts";
import { below } from "./choices.ts";

interface Node {
  tag: number;
  /** Children of a constructed element; null for a primitive one. */
  children: Node[] | null;
  content: Uint8Array;
  /** Written with more length octets than needed, as BER allows. */
  wide: boolean;
}

export function pick<T>(random: Random, items: readonly T[]): T {
  const item = items[below(random, items.length)];
  if (item === undefined) throw new Error("nothing to pick from");
  return item;
}

/** One to four mutations of either kind. `donors` lend whole elements. */
export function mutate(random: Random, der: Uint8Array, donors: readonly Uint8Array[]): Uint8Array {
  let bytes = der;
  const rounds = 1 + below(random, 4);
  for (let i = 0; i < rounds; i++) bytes = random.next() < 0.35 ? mutateBytes(random, bytes) : mutateTree(random, bytes, pick(random, donors));
  return bytes;
}

function mutateBytes(random: Random, bytes: Uint8Array): Uint8Array {
  if (bytes.length === 0) return Uint8Array.of(0x30);
  const at = below(random, bytes.length);
  switch (below(random, 6)) {
    case 0: return bytes.with(at, bytes[at]! ^ (1 << below(random, 8)));
    case 1: return bytes.with(at, pick(random, [0x00, 0x01, 0x1f, 0x30, 0x7f, 0x80, 0x81, 0x82, 0xa0, 0xff]));
    case 2: return bytes.subarray(0, at);
    case 3: return new Uint8Array([...bytes.subarray(0, at), below(random, 256), ...bytes.subarray(at)]);
    case 4: return new Uint8Array([...bytes.subarray(0, at), ...bytes.subarray(Math.min(bytes.length, at + 1 + below(random, 8)))]);
    default: return new Uint8Array([...bytes, below(random, 256)]);
  }
}

function mutateTree(random: Random, bytes: Uint8Array, donor: Uint8Array): Uint8Array {
  const tree = parseTree(bytes, 0, bytes.length);
  const lent = parseTree(donor, 0, donor.length);
  if (tree === null || lent === null) return mutateBytes(random, bytes);
  const lists = childLists(tree, []);
  const list = pick(random, lists);
  if (list.length === 0) {
    list.push(pick(random, childLists(lent, []).flat()));
    return encodeTree(tree);
  }
  const at = below(random, list.length);
  const node = list[at]!;
  switch (below(random, 9)) {
    case 0: list.splice(at, 1); break;
    case 1: list.splice(at, 0, node); break;
    case 2: list[at] = pick(random, childLists(lent, []).flat()); break;
    case 3: list.splice(at, 0, pick(random, childLists(lent, []).flat())); break;
    case 4: list.reverse(); break;
    case 5: node.tag = pick(random, [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0c, 0x16, 0x17, 0x18, 0x30, 0x31, 0x80, 0x81, 0x82, 0x86, 0x87, 0xa0, 0xa3, node.tag ^ 1]); break;
    case 6: {
      const leaves = lists.flat().filter((one) => one.children === null);
      if (leaves.length === 0) break; // Cut down to empty sequences.
      const leaf = pick(random, leaves);
      leaf.content = mutateBytes(random, leaf.content);
      break;
    }
    case 7: node.wide = true; break;
    default: list.push(...Array.from({ length: 1 + below(random, 40) }, () => node));
  }
  return encodeTree(tree);
}

/** Extensions whose value the readers read: 2.5.29 with key identifiers, usages, names, constraints, CRL number excepted. */
const READ_EXTENSIONS: ReadonlySet<string> = new Set(["551d0e", "551d0f", "551d11", "551d13", "551d23", "551d25"]);

/**
 * Which octet strings are opened as DER: all that may hold it; or those that the readers open, which are the values of known extensions
 * (`beforeExtensions`, then `extensions` below the `[0]` or `[3]` of the signed part, then `none` inside a value).
 */
type Opening = "all" | "beforeExtensions" | "extensions" | "none";

/** Null when the bytes are not a list of elements. */
function parseTree(bytes: Uint8Array, start: number, end: number, opening: Opening = "all", depth = 0): Node[] | null {
  const nodes: Node[] = [];
  let at = start;
  while (at < end) {
    if (end - at < 2) return null;
    const tag = bytes[at]!;
    let length = bytes[at + 1]!;
    at += 2;
    if (length >= 0x80) {
      const lengthOctets = length & 0x7f;
      if (lengthOctets === 0 || lengthOctets > 3 || end - at < lengthOctets) return null;
      length = 0;
      for (let i = 0; i < lengthOctets; i++) length = length * 256 + bytes[at + i]!;
      at += lengthOctets;
    }
    if (length > end - at) return null;
    const isOctets = tag === 0x04 && length > 2 && bytes[at] === 0x30;
    const opened = (tag & 0x20) !== 0 || (isOctets && (opening === "all" || (opening === "extensions" && READ_EXTENSIONS.has(nodes[0]?.content.toHex() ?? ""))));
    const isExtensions = opening === "beforeExtensions" && depth === 2 && (tag === 0xa0 || tag === 0xa3);
    const below = isExtensions ? "extensions" : isOctets && opening === "extensions" ? "none" : opening;
    const children = opened ? parseTree(bytes, at, at + length, below, depth + 1) : null;
    nodes.push({ tag, children, content: bytes.slice(at, at + length), wide: false });
    at += length;
  }
  return nodes;
}

function childLists(nodes: Node[], lists: Node[][]): Node[][] {
  lists.push(nodes);
  for (const node of nodes) if (node.children !== null) childLists(node.children, lists);
  return lists;
}

function encodeTree(nodes: readonly Node[]): Uint8Array {
  const parts = nodes.map((node) => {
    const content = node.children === null ? node.content : encodeTree(node.children);
    return node.wide ? Uint8Array.of(node.tag, 0x83, content.length >> 16, (content.length >> 8) & 0xff, content.length & 0xff, ...content) : encode(node.tag, content);
  });
  return new Uint8Array(parts.flatMap((part) => [...part]));
}

/** The same bytes written anew from their tree: equal to `der` exactly when every tag and length of it is in its one canonical form. */
export function reencode(der: Uint8Array): Uint8Array | null {
  const tree = parseTree(der, 0, der.length, "beforeExtensions");
  return tree === null ? null : encodeTree(tree);
}
