// Package push turns a challenge into Web Push messages and sends them:
// subscriptions and the guard over their endpoints, the VAPID identity, the
// JSON a service worker reads, and one Sender.
//
// What it guarantees:
//
//   - An endpoint is a URL that an attacker may have written. It is accepted only
//     over https on the port of a known or configured push service, by parsed
//     host, and checked again before every send. The address is checked once more
//     when the connection is made, after DNS, so a name that resolves to a private,
//     loopback, link-local, mapped or translated address is never dialled.
//     Redirects and proxies are not used.
//   - A message is encrypted for one subscription (RFC 8291, aes128gcm) and signed
//     with the VAPID key (RFC 8292). Its payload always fits one record.
//   - A send ends within 10 s, reads at most 1 KiB of the answer into memory, and
//     ends in exactly one of four verdicts.
//   - No error, log line or formatted value carries a key, a code, a token or the
//     path of an endpoint: whoever knows that path can push to the device.
//
// What it does not do: it keeps nothing, retries nothing, and knows no users,
// limits or queues. It does not learn whether a device showed the message; a
// Delivered verdict says that the push service took it (RFC 8030, section 5).
package push
