package browsertest

import (
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
)

// authenticator is one that is built into the device of a tab.
type authenticator struct {
	b  *tab
	id webauthn.AuthenticatorID
}

// authenticator adds one, whose owner is there and proves it.
func (b *tab) authenticator() *authenticator {
	b.t.Helper()
	b.must(chromedp.Call(b.ctx, webauthn.Enable, webauthn.EnableParams{}))
	added, err := chromedp.Call(b.ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
		HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
	}})
	if err != nil {
		b.t.Fatal(err)
	}
	return &authenticator{b, added.AuthenticatorID}
}

// verifies sets whether the finger on it is its owner's.
func (a *authenticator) verifies(yes bool) {
	a.b.t.Helper()
	a.b.must(chromedp.Call(a.b.ctx, webauthn.SetUserVerified, webauthn.SetUserVerifiedParams{AuthenticatorID: a.id, IsUserVerified: yes}))
}

// waits keeps it waiting for a finger.
func (a *authenticator) waits() {
	a.b.t.Helper()
	a.b.must(chromedp.Call(a.b.ctx, webauthn.SetAutomaticPresenceSimulation, webauthn.SetAutomaticPresenceSimulationParams{AuthenticatorID: a.id}))
}

// forges has it sign with nonsense.
func (a *authenticator) forges(yes bool) {
	a.b.t.Helper()
	a.b.must(chromedp.Call(a.b.ctx, webauthn.SetResponseOverrideBits, webauthn.SetResponseOverrideBitsParams{AuthenticatorID: a.id, IsBogusSignature: &yes}))
}
