// Keys, certificates and a token, made anew for each run of the benchmark.

import { writeFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { keySet, sign, testKey } from "../../test/kit/issuer.ts";
import { must } from "../lib/process.ts";
import { certificateAuthority } from "../peers/weft.ts";
import { type Identity, ISSUER, type Materials, SERVER_NAME } from "./features.ts";

const TOKEN_S = 86_400;

export async function makeMaterials(directory: string): Promise<Materials> {
  const key = await testKey("bench", "RS256");
  const nowS = Math.floor(Date.now() / 1000);
  const token = await sign(key, { iss: ISSUER, sub: "bench", iat: nowS - 10, exp: nowS + TOKEN_S });
  const authority = certificateAuthority(directory);
  const identity = (name: string, subject: string): Identity => {
    const file = (ending: string): string => join(directory, `${name}.${ending}`);
    must(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-keyout", file("key"), "-out", file("csr"), "-subj", "/"]);
    writeFileSync(file("extensions"), `subjectAltName=critical,${subject}\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=critical,CA:FALSE\n`);
    must(["openssl", "x509", "-req", "-in", file("csr"), "-CA", authority.certificate, "-CAkey", authority.key, "-CAcreateserial", "-out", file("crt"), "-days", "2", "-extfile", file("extensions")]);
    writeFileSync(file("pem"), readFileSync(file("crt"), "utf8") + readFileSync(authority.certificate, "utf8"));
    return { chain: file("pem"), key: file("key") };
  };
  const spiffe = (account: string): string => `URI:spiffe://cluster.local/ns/shop/sa/${account}`;
  return {
    directory, jwks: keySet(key), token, root: authority.root, authority: { certificate: authority.certificate, key: authority.key },
    client: identity("client", spiffe("client")), waypoint: identity("waypoint", spiffe("waypoint")), server: identity("server", `DNS:${SERVER_NAME}`),
  };
}
