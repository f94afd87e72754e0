// How a gRPC call says that it ended: `grpc-status` and `grpc-message`, in the trailers or, without a body, in the headers
// (gRPC over HTTP/2, "Responses" and "Status-Message").

/** Longer messages are cut, before they are decoded: they are for people to read. */
export const GRPC_MESSAGE_CHARS_MAX = 1024;

/** The highest of the codes that the specification names (UNAUTHENTICATED). */
const STATUS_MAX = 16;
const UNKNOWN = 2;

/** As the specification's codes are called, by number. */
export const GRPC_STATUS_NAMES = [
  "Ok", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented",
  "Internal", "Unavailable", "DataLoss", "Unauthenticated",
] as const;
export type GrpcStatusName = (typeof GRPC_STATUS_NAMES)[number];

/** What a response that is none of gRPC's says by its HTTP status (gRPC, "HTTP to gRPC Status Code Mapping"). */
export function grpcStatusOfHttp(httpStatus: number): GrpcStatusName {
  switch (httpStatus) {
    case 400:
      return "Internal";
    case 401:
      return "Unauthenticated";
    case 403:
      return "PermissionDenied";
    case 404:
      return "Unimplemented";
    case 429:
    case 502:
    case 503:
    case 504:
      return "Unavailable";
    default:
      return "Unknown";
  }
}
const decoder = new TextDecoder();

/** 0 to 16. Anything else that is there at all reads as UNKNOWN, as the specification asks; null when there is none. */
export function parseGrpcStatusField(text: string | undefined): number | null {
  if (text === undefined) return null;
  if (!/^(?:0|[1-9][0-9]?)$/.test(text)) return UNKNOWN;
  const status = Number(text);
  return status <= STATUS_MAX ? status : UNKNOWN;
}

/** UTF-8 in percent escapes. What is no escape, or no UTF-8, is kept in some form: a message is never refused. */
export function decodeGrpcMessage(text: string): string {
  const short = text.length > GRPC_MESSAGE_CHARS_MAX ? text.slice(0, GRPC_MESSAGE_CHARS_MAX) : text;
  if (!short.includes("%")) return short;
  const bytes = new Uint8Array(short.length);
  let length = 0;
  for (let i = 0; i < short.length; i++) {
    const code = short.charCodeAt(i);
    const byte = code === 0x25 ? hexPair(short, i + 1) : -1;
    if (byte >= 0) i += 2;
    bytes[length++] = byte >= 0 ? byte : code & 0xff;
  }
  return decoder.decode(bytes.subarray(0, length));
}

function hexPair(text: string, at: number): number {
  const pair = text.slice(at, at + 2);
  return /^[0-9a-fA-F]{2}$/.test(pair) ? Number.parseInt(pair, 16) : -1;
}
