// How a client proves itself to an issuer: HTTP Basic, each half form-encoded first (RFC 6749, section 2.3.1).

export function basicAuthorization(clientId: string, clientSecret: string): string {
  const encoded = (text: string): string => new URLSearchParams([["", text]]).toString().slice(1);
  return `Basic ${Buffer.from(`${encoded(clientId)}:${encoded(clientSecret)}`).toString("base64")}`;
}
