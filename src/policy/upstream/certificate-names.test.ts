import { describe, expect, test } from "bun:test";
import type { CertificateName } from "../../mesh/l7/traffic-policy.ts";
import { nameMismatch, type PresentedNames } from "./certificate-names.ts";

const names = (fields: Partial<PresentedNames>): PresentedNames => ({ dnsNames: [], uris: [], ips: [], ...fields });
const dns = (value: string): CertificateName => ({ type: "dns", value });

describe("names of a server's certificate", () => {
  test.each([
    ["api.example.com", "api.example.com", true],
    ["API.Example.com.", "api.example.com", true],
    ["*.example.com", "api.example.com", true],
    ["*.example.com", "example.com", false],
    ["*.example.com", "a.b.example.com", false],
    ["*.com", "example.com", false],
    ["a*.example.com", "api.example.com", false],
    ["api.*.com", "api.example.com", false],
    ["*", "localhost", false],
    ["", "", true],
    ["evil-example.com", "example.com", false],
  ])("%s for %s: %p", (presented, wanted, fits) => {
    expect(nameMismatch(names({ dnsNames: [presented] }), [dns(wanted)]) === null).toBe(fits);
  });

  test("a wanted wildcard takes one label, and a certificate with the same wildcard", () => {
    expect(nameMismatch(names({ dnsNames: ["api.example.com"] }), [dns("*.example.com")])).toBeNull();
    expect(nameMismatch(names({ dnsNames: ["*.example.com"] }), [dns("*.example.com")])).toBeNull();
    expect(nameMismatch(names({ dnsNames: ["a.b.example.com"] }), [dns("*.example.com")])).not.toBeNull();
    expect(nameMismatch(names({ dnsNames: ["*.b.example.com"] }), [dns("*.example.com")])).not.toBeNull();
  });

  test("a host name is not found among URIs, nor a URI among host names", () => {
    expect(nameMismatch(names({ uris: ["api.example.com"] }), [dns("api.example.com")])).not.toBeNull();
    expect(nameMismatch(names({ dnsNames: ["spiffe://a/b"] }), [{ type: "uri", value: "spiffe://a/b" }])).not.toBeNull();
    expect(nameMismatch(names({ uris: ["spiffe://a/b"] }), [{ type: "uri", value: "spiffe://a/b" }])).toBeNull();
  });

  test("any kind of name will do where no kind is said", () => {
    const any = (value: string): CertificateName[] => [{ type: "any", value }];
    expect(nameMismatch(names({ uris: ["spiffe://a/b"] }), any("spiffe://a/b"))).toBeNull();
    expect(nameMismatch(names({ ips: ["198.51.100.7"] }), any("198.51.100.7"))).toBeNull();
    expect(nameMismatch(names({ dnsNames: ["*.example.com"] }), any("a.example.com"))).toBeNull();
  });

  test("says what was seen and what was wanted", () => {
    expect(nameMismatch(names({ dnsNames: ["other.example.com"] }), [dns("api.example.com")])).toBe("its certificate is for other.example.com, wanted api.example.com");
    expect(nameMismatch(names({}), [dns("api.example.com")])).toBe("its certificate is for no name at all, wanted api.example.com");
    expect(nameMismatch(names({ dnsNames: Array.from({ length: 10 }, (_, i) => `h${i}`) }), [dns("x")])).toContain("h7 and 2 more, wanted x");
  });
});
