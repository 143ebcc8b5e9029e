// Package browsertest runs the cardholder app and the operator's console in real
// browsers against the real program: Debian's Chromium and Firefox ESR, headless,
// on loopback. All of it is test code: nothing here is part of the program.
//
// # What is real
//
//   - The relay is the program as it is built, on a real Redis. The card issuer,
//     the downstream service and the push services are simulated (package sim)
//     and verify whatever they get.
//   - Firefox subscribes at a push service that speaks its websocket protocol,
//     gets the encrypted push (RFC 8291) and decrypts it itself.
//   - Chromium's own push service cannot be reached without a network. There
//     PushManager hands out the subscription of a simulated device, whose
//     decrypted pushes are given to the service worker over the DevTools protocol.
//   - Both show their notifications on a D-Bus session of their own, with the
//     notification daemon of this package: what is pressed there is, to the
//     browser, a person's press.
//   - Passkeys are made and used by the page's own calls; the authenticator is
//     Chromium's virtual one, whose finger the tests move.
//
// What is pressed and read in a page is found by accessible role and name, as a
// screen reader finds it.
//
// # What is checked
//
// From the issuer's webhook to a notification, its Approve, and the sealed
// confirm, also when the session has ended; the same by hand; with a passkey, from
// the first one added to a proof that holds, and where it is not given, not good, or
// not there; two devices in step; expiry, codes, no network, no relay, sign-out; that
// the app can be installed, opens without a network, and asks nobody but the relay.
// Every state of the page is reached and looked at by axe-core, light and dark, at
// 360 and 1280 pixels. The first load has a budget in bytes and no layout shift;
// times are reported, never asserted.
//
// In the console: from a name to the life of a payment; out of quarantine after a
// mended mapping; a target's queue while it is paused; dead letters, lost phones,
// card owners by the thousand; the token; no store, no relay; a keyboard alone.
//
// # Run it
//
//	go test ./cmd/relay/browsertest
//	go test ./cmd/relay/browsertest -run EveryState -args -shots DIR        # screenshots
//	go test ./cmd/relay/browsertest -run 'FirstLoad|WebhookTo' -v           # figures
//
// It needs redis-server, chromium, firefox-esr and libnotify4, and fails without
// them: what was not tested in a browser must not look as if it had been.
//
// Non-goals: Safari; the browsers' own push services; how a desktop's daemon
// draws a notification.
//
// testdata/axe is axe-core 4.14.1 as published (MPL-2.0, its licences beside it),
// used by these tests alone.
package browsertest
