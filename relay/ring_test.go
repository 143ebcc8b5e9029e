package relay

import (
	"fmt"
	"testing"
	"time"
)

func TestSilence(t *testing.T) {
	t.Parallel()
	o := PushOptions{CardCount: 5}
	fresh := Challenge{Status: Pending, UserID: "anna"}
	waited := fresh
	waited.Announced, waited.Silence = true, silenceNoOwner
	for name, tc := range map[string]struct {
		c     Challenge
		crowd Crowd
		want  string
	}{
		"alone":                       {fresh, Crowd{Recent: 1}, ""},
		"the last that may":           {fresh, Crowd{Recent: 5}, ""},
		"one too many":                {fresh, Crowd{Recent: 6}, silenceRecent},
		"newer ones have no say":      {fresh, Crowd{Recent: 1, Newer: 100}, ""},
		"muted":                       {fresh, Crowd{Recent: 1, Muted: true}, silenceMuted},
		"waited, the newest":          {waited, Crowd{Recent: 50}, ""},
		"waited, the oldest that may": {waited, Crowd{Recent: 46, Newer: 4}, ""},
		"waited, one too old":         {waited, Crowd{Recent: 45, Newer: 5}, silenceOld},
		"waited and muted":            {waited, Crowd{Recent: 1, Muted: true}, silenceMuted},
		"announced to its owner, who had no device": {Challenge{Status: Pending, UserID: "anna", Announced: true, Silence: "x"}, Crowd{Recent: 6}, silenceRecent},
	} {
		if got := o.silence(tc.c, tc.crowd); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// ringing is a challenge that has rung n seconds after testNow; change may alter it.
func ringing(n int, change ...func(*Challenge)) Challenge {
	at := testNow.Add(time.Duration(n) * time.Second)
	c := Challenge{
		ID: fmt.Sprintf("chl_%03d", n), Merchant: "acme", UserID: "anna", CardID: "c", Kind: ThreeDS, Method: MethodApprove, Status: Pending,
		Amount: "10.00", Currency: "EUR", Payee: "Shop", Reference: fmt.Sprint(n), CreatedAt: at, ExpiresAt: testNow.Add(300 * time.Second),
		Announced: true, PushesOwed: 1,
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

func unannounced(c *Challenge) { c.Announced, c.PushesOwed = false, 0 }
func waited(c *Challenge)      { c.Silence, c.PushesOwed = silenceNoOwner, 0 }
func on(tag string) func(*Challenge) {
	return func(c *Challenge) { c.Tag = tag }
}

func TestSharedTag(t *testing.T) {
	t.Parallel()
	c := ringing(9, unannounced)
	for name, tc := range map[string]struct {
		others []Challenge // newest first
		want   string
	}{
		"nobody":                    {nil, ""},
		"one like it":               {[]Challenge{ringing(1)}, "chl_001"},
		"on an older one's":         {[]Challenge{ringing(2, on("chl_001")), ringing(1)}, "chl_001"},
		"whose first has ended":     {[]Challenge{ringing(2, on("chl_001"))}, "chl_001"},
		"a scaled amount":           {[]Challenge{ringing(1, func(c *Challenge) { c.Amount = "10" })}, "chl_001"},
		"another amount":            {[]Challenge{ringing(1, func(c *Challenge) { c.Amount = "10.01" })}, ""},
		"another currency":          {[]Challenge{ringing(1, func(c *Challenge) { c.Currency = "USD" })}, ""},
		"another payee":             {[]Challenge{ringing(1, func(c *Challenge) { c.Payee = "Other" })}, ""},
		"another method":            {[]Challenge{ringing(1, func(c *Challenge) { c.Method = MethodOTP })}, ""},
		"another kind":              {[]Challenge{ringing(1, func(c *Challenge) { c.Kind = CardVerification })}, ""},
		"another card":              {[]Challenge{ringing(1, func(c *Challenge) { c.CardID = "d" })}, ""},
		"a former owner's":          {[]Challenge{ringing(1, func(c *Challenge) { c.UserID = "berta" })}, ""},
		"one that has ended":        {[]Challenge{ringing(1, func(c *Challenge) { c.Status = Rejected })}, ""},
		"one being confirmed":       {[]Challenge{ringing(1, func(c *Challenge) { c.Status = Confirming })}, ""},
		"one whose time is up":      {[]Challenge{ringing(1, func(c *Challenge) { c.ExpiresAt = testNow })}, ""},
		"one that is silent":        {[]Challenge{ringing(1, func(c *Challenge) { c.PushesOwed, c.Silence = 0, silenceRecent })}, ""},
		"announced just now":        {[]Challenge{ringing(2, unannounced), ringing(1, unannounced)}, "chl_001"},
		"adopted at the same time":  {[]Challenge{ringing(12, waited), ringing(2, waited)}, "chl_002"},
		"not adopted yet":           {[]Challenge{ringing(2, waited, func(c *Challenge) { c.UserID = "" })}, "chl_002"},
		"adopted, and newer":        {[]Challenge{ringing(12, waited)}, ""},
		"adopted, one rings by now": {[]Challenge{ringing(12, on("chl_002")), ringing(1, waited)}, "chl_002"},
	} {
		if got := sharedTag(c, tc.others, testNow); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestOvertaken(t *testing.T) {
	t.Parallel()
	c := ringing(5)
	for name, tc := range map[string]struct {
		other Challenge
		want  bool
	}{
		"by a newer one on it":      {ringing(6, on("chl_005")), true},
		"by one on another":         {ringing(6), false},
		"not by an older one":       {ringing(4, on("chl_005")), false},
		"not by one that ended":     {ringing(6, on("chl_005"), func(c *Challenge) { c.Status = Approved }), false},
		"not by one whose time is":  {ringing(6, on("chl_005"), func(c *Challenge) { c.ExpiresAt = testNow }), false},
		"not by one that is silent": {ringing(6, on("chl_005"), func(c *Challenge) { c.PushesOwed = 0 }), false},
		"not by somebody else's":    {ringing(6, on("chl_005"), func(c *Challenge) { c.UserID = "berta" }), false},
	} {
		if got := overtaken(c, c.tag(), []Challenge{tc.other}, testNow); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if !overtaken(ringing(3, on("chl_001")), "chl_001", []Challenge{ringing(9), ringing(4, on("chl_001"))}, testNow) {
		t.Error("both on a third one's notification")
	}
}
