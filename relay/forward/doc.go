// Package forward talks HTTP to the parties behind the relay: Downstream posts
// events to the operator's targets, signed as Standard Webhooks, and Issuer
// tells the card issuer of decisions and card locks, sealed in the issuer's own
// envelope. Each call is one attempt; when to try again is the domain's business.
//
// # Guarantees
//
//   - An attempt ends within its timeout, or with its context. Connections are
//     kept and used again; each target and each issuer has its own, so that none
//     can use up another's.
//   - Redirects are never followed and no proxy is taken from the environment:
//     requests go to the configured hosts and nowhere else. TLS is 1.2 or newer.
//   - Of a target's answer little more than 64 KiB is read, of an issuer's at
//     most 128 KiB, and 1 KiB of visible UTF-8 is kept.
//   - A decision counts as taken only on a 2xx whose HMAC was made with one of
//     the merchant's secrets. Where the issuer may have taken it without our
//     knowing, the verdict is relay.Unclear, never a guess.
//   - Recorded errors are a few fixed words: they hold no URL, header, secret or
//     foreign text but what a certificate says. Static headers and values of a
//     URL's query are removed from recorded answers that echo them. What holds
//     secrets prints, marshals and logs as "[redacted]".
//   - Downstream and Issuer are immutable and safe for concurrent use.
//
// # Non-goals
//
// Retries, queues and limits of concurrency. Which hosts and plain http are
// allowed: the configuration decides that, its author is trusted. Removing codes
// and card numbers from answers: the caller knows them. The envelope's HMAC does
// not bind an answer to its request (the format is the issuer's); TLS does.
package forward
