// Package api is the HTTP face of the relay: the issuer's webhooks, the
// cardholder API with its event stream, the OpenAPI document, the cardholder app
// and the operator's calls. It holds no rule of the domain: every handler reads a
// request, calls relay.Service and writes what came of it.
//
// # Guarantees
//
//   - One place turns an error into an answer (problem.go): problem details
//     (RFC 9457) with a code for programs. What it does not know is an opaque 500,
//     logged under the request's id.
//   - A token is checked for signature, algorithm, issuer, audience, expiry and
//     user before anything else happens; every fault gets the same 401. So does a
//     token that two readers may read differently, and one that was signed for
//     another purpose than a login. What it says about keys, or where to find them,
//     is never followed.
//   - An action token opens the calls about its one challenge and nothing else.
//   - Rate limits come before cryptography at the webhooks, and are counted per
//     user behind authentication.
//   - Bodies are bounded, and read strictly where we define them.
//   - Logs hold routes, codes and ids: no query, header, body or path.
//   - The admin handler answers only under names that are its own (DNS
//     rebinding), and takes no cross-origin request.
//
// # Non-goals
//
// TLS, listeners and their timeouts (cmd starts the servers), sessions and
// cookies (there are none, so no request can be forged across sites), and
// compression.
package api
