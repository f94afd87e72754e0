// HPACK's tables (RFC 7541, section 2.3): the static one, and the dynamic one as a ring.

/** Every entry costs this much beyond its strings (RFC 7541, section 4.1). */
export const ENTRY_OVERHEAD_BYTES = 32;

// prettier-ignore
const STATIC: readonly (readonly [string, string])[] = [
  [":authority", ""],
  [":method", "GET"],
  [":method", "POST"],
  [":path", "/"],
  [":path", "/index.html"],
  [":scheme", "http"],
  [":scheme", "https"],
  [":status", "200"],
  [":status", "204"],
  [":status", "206"],
  [":status", "304"],
  [":status", "400"],
  [":status", "404"],
  [":status", "500"],
  ["accept-charset", ""],
  ["accept-encoding", "gzip, deflate"],
  ["accept-language", ""],
  ["accept-ranges", ""],
  ["accept", ""],
  ["access-control-allow-origin", ""],
  ["age", ""],
  ["allow", ""],
  ["authorization", ""],
  ["cache-control", ""],
  ["content-disposition", ""],
  ["content-encoding", ""],
  ["content-language", ""],
  ["content-length", ""],
  ["content-location", ""],
  ["content-range", ""],
  ["content-type", ""],
  ["cookie", ""],
  ["date", ""],
  ["etag", ""],
  ["expect", ""],
  ["expires", ""],
  ["from", ""],
  ["host", ""],
  ["if-match", ""],
  ["if-modified-since", ""],
  ["if-none-match", ""],
  ["if-range", ""],
  ["if-unmodified-since", ""],
  ["last-modified", ""],
  ["link", ""],
  ["location", ""],
  ["max-forwards", ""],
  ["proxy-authenticate", ""],
  ["proxy-authorization", ""],
  ["range", ""],
  ["referer", ""],
  ["refresh", ""],
  ["retry-after", ""],
  ["server", ""],
  ["set-cookie", ""],
  ["strict-transport-security", ""],
  ["transfer-encoding", ""],
  ["user-agent", ""],
  ["vary", ""],
  ["via", ""],
  ["www-authenticate", ""],
];

export const STATIC_COUNT = STATIC.length;
/** Index 1 is the first; index 0 is not used. */
export const STATIC_NAMES: readonly string[] = ["", ...STATIC.map((entry) => entry[0])];
export const STATIC_VALUES: readonly string[] = ["", ...STATIC.map((entry) => entry[1])];

/** The first index of each name. */
export const STATIC_NAME_INDEX: ReadonlyMap<string, number> = new Map([...STATIC].reverse().map((entry) => [entry[0], STATIC.indexOf(entry) + 1]));
/** By name, by value: the index of the whole field. Only fields with a value are worth it. */
export const STATIC_FIELD_INDEX: ReadonlyMap<string, ReadonlyMap<string, number>> = fieldIndex();

function fieldIndex(): Map<string, Map<string, number>> {
  const byName = new Map<string, Map<string, number>>();
  STATIC.forEach(([name, value], i) => {
    let values = byName.get(name);
    if (values === undefined) byName.set(name, (values = new Map()));
    values.set(value, i + 1);
  });
  return byName;
}

/**
 * First in, first out, bounded by size. Entries are addressed by age (0 is the newest) or by serial, the number of
 * entries ever added before them: a serial stays right while the entry lives.
 */
export class DynamicTable {
  sizeBytes = 0;
  count = 0;
  /** Serial of the next entry. */
  nextSerial = 0;
  maxBytes: number;
  private names: string[] = [];
  private values: string[] = [];
  private marks: number[] = [];
  private mask = -1;

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  /** Name, value and mark of the entry of this age; the caller checked `age < count`. */
  nameAt(age: number): string {
    return this.names[(this.nextSerial - 1 - age) & this.mask]!;
  }

  valueAt(age: number): string {
    return this.values[(this.nextSerial - 1 - age) & this.mask]!;
  }

  markAt(age: number): number {
    return this.marks[(this.nextSerial - 1 - age) & this.mask]!;
  }

  /** Evicts until an entry of `entryBytes` fits. False: it never will, and the table is now empty (RFC 7541, section 4.4). */
  makeRoom(entryBytes: number, onEvict?: (name: string, value: string, serial: number) => void): boolean {
    while (this.count > 0 && this.sizeBytes + entryBytes > this.maxBytes) this.evictOldest(onEvict);
    return entryBytes <= this.maxBytes;
  }

  /** Adds after `makeRoom` said yes. */
  add(name: string, value: string, mark: number): void {
    if (this.count > this.mask) this.grow();
    const slot = this.nextSerial & this.mask;
    this.names[slot] = name;
    this.values[slot] = value;
    this.marks[slot] = mark;
    this.nextSerial++;
    this.count++;
    this.sizeBytes += name.length + value.length + ENTRY_OVERHEAD_BYTES;
  }

  resize(maxBytes: number, onEvict?: (name: string, value: string, serial: number) => void): void {
    this.maxBytes = maxBytes;
    while (this.count > 0 && this.sizeBytes > maxBytes) this.evictOldest(onEvict);
  }

  private evictOldest(onEvict?: (name: string, value: string, serial: number) => void): void {
    const serial = this.nextSerial - this.count;
    const slot = serial & this.mask;
    const name = this.names[slot]!;
    const value = this.values[slot]!;
    this.sizeBytes -= name.length + value.length + ENTRY_OVERHEAD_BYTES;
    this.count--;
    this.names[slot] = "";
    this.values[slot] = "";
    if (onEvict !== undefined) onEvict(name, value, serial);
  }

  /** The ring starts empty (an idle tunnel pays nothing) and doubles; `maxBytes / 32` bounds it. */
  private grow(): void {
    const slots = this.mask === -1 ? 8 : (this.mask + 1) * 2;
    const names = new Array<string>(slots).fill("");
    const values = new Array<string>(slots).fill("");
    const marks = new Array<number>(slots).fill(0);
    for (let age = 0; age < this.count; age++) {
      const from = (this.nextSerial - 1 - age) & this.mask;
      const to = (this.nextSerial - 1 - age) & (slots - 1);
      names[to] = this.names[from]!;
      values[to] = this.values[from]!;
      marks[to] = this.marks[from]!;
    }
    this.names = names;
    this.values = values;
    this.marks = marks;
    this.mask = slots - 1;
  }
}
