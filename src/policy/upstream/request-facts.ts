// What decisions about an upstream may ask of a request: a narrow view that the waypoint puts over its own. Header names are lower case.

export interface RequestFacts {
  /** Value of a header, repeated ones joined by comma; null without one. */
  header(name: string): string | null;
  cookie(name: string): string | null;
  /** First value of a query parameter, decoded. */
  query(name: string): string | null;
  /** In normal form, without the query. */
  readonly path: string;
  /** Address of the original client; null when unknown. */
  readonly sourceIp: string | null;
  /** SPIFFE ID of the original client; null when not authenticated. */
  readonly identity: string | null;
  /** A claim of a verified token as text; null without one. */
  claim(path: readonly string[]): string | null;
}
