// The numbers of DNS that we give meaning to (IANA, Domain Name System Parameters), and where names stand inside RDATA.

export const RecordType = {
  A: 1, NS: 2, CNAME: 5, SOA: 6, PTR: 12, MX: 15, TXT: 16, AAAA: 28, SRV: 33, NAPTR: 35, OPT: 41, DS: 43, RRSIG: 46, NSEC: 47, DNSKEY: 48,
  SVCB: 64, HTTPS: 65, CAA: 257, ANY: 255,
} as const;

export const RecordClass = { IN: 1, CH: 3, NONE: 254, ANY: 255 } as const;

export const ResponseCode = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5, BADVERS: 16 } as const;

export const OPCODE_QUERY = 0;

const typeNames = new Map<number, string>(Object.entries(RecordType).map(([name, value]) => [value, name]));

/** `A`, `AAAA`, …; `other` for what has no name here, so that a label made of it stays bounded. */
export function recordTypeName(type: number): string {
  return typeNames.get(type) ?? "other";
}

/**
 * The parts of RDATA before and between names, for the types whose names may arrive compressed (RFC 1035 and the list in
 * RFC 3597, section 4). A number is that many bytes, `text` one character-string, `name` a name, `rest` whatever remains.
 * Every other type is bytes.
 */
export type RdataPart = number | "name" | "text" | "rest";

export const rdataParts: ReadonlyMap<number, readonly RdataPart[]> = new Map<number, readonly RdataPart[]>([
  [2, ["name"]], // NS
  [3, ["name"]], // MD
  [4, ["name"]], // MF
  [5, ["name"]], // CNAME
  [6, ["name", "name", 20]], // SOA
  [7, ["name"]], // MB
  [8, ["name"]], // MG
  [9, ["name"]], // MR
  [12, ["name"]], // PTR
  [14, ["name", "name"]], // MINFO
  [15, [2, "name"]], // MX
  [17, ["name", "name"]], // RP
  [18, [2, "name"]], // AFSDB
  [21, [2, "name"]], // RT
  [24, [18, "name", "rest"]], // SIG
  [26, [2, "name", "name"]], // PX
  [30, ["name", "rest"]], // NXT
  [33, [6, "name"]], // SRV
  [35, [4, "text", "text", "text", "name"]], // NAPTR
  [36, [2, "name"]], // KX
  [39, ["name"]], // DNAME
]);
