package relay

import (
	"slices"
	"time"

	"approvalrelay/push"
)

// activationTime is how long a new subscription may take to prove that its
// endpoint is the caller's; activationTries bounds the guesses.
const (
	activationTime  = 10 * time.Minute
	activationTries = 5
)

// Subscription is one browser's push subscription. Only active ones get
// challenges.
type Subscription struct {
	ID        string            `json:"id"`
	Active    bool              `json:"a,omitempty"`
	Label     string            `json:"l,omitempty"`
	Lang      string            `json:"la,omitempty"` // what notifications are written in; "": English
	CreatedAt time.Time         `json:"cr"`
	UsedAt    time.Time         `json:"us"` // when the app last showed up with it
	PendingAt time.Time         `json:"pe,omitzero"`
	Tries     int               `json:"tr,omitempty"`
	Push      push.Subscription `json:"p"` // sealed in the store
}

// Devices are all subscriptions of one user, one record. The methods are pure.
type Devices struct {
	User    User
	Version int
	List    []Subscription
	Were    int // how many were active when it was read, for the store's counter
}

// Live drops what was not activated in time.
func (d Devices) Live(now time.Time) Devices {
	d.List = slices.DeleteFunc(slices.Clone(d.List), func(s Subscription) bool {
		return !s.Active && !now.Before(s.PendingAt.Add(activationTime))
	})
	return d
}

// Active are the subscriptions that get challenges.
func (d Devices) Active() []Subscription {
	return slices.DeleteFunc(slices.Clone(d.List), func(s Subscription) bool { return !s.Active })
}

// Find a subscription by its id.
func (d Devices) Find(id string) (Subscription, bool) {
	i := d.index(id)
	if i < 0 {
		return Subscription{}, false
	}
	return d.List[i], true
}

func (d Devices) index(id string) int {
	return slices.IndexFunc(d.List, func(s Subscription) bool { return s.ID == id })
}

// Add registers a subscription under newID. The same endpoint keeps its id, and
// is pending again if its keys have changed; an empty label or lang leaves what is
// known. Beyond limit the one longest unused goes.
func (d Devices) Add(p push.Subscription, label, lang, newID string, limit int, now time.Time) (next Devices, s Subscription, created bool) {
	d.List = slices.Clone(d.List)
	if i := slices.IndexFunc(d.List, func(s Subscription) bool { return s.Push.Endpoint == p.Endpoint }); i >= 0 {
		known := &d.List[i]
		if known.Push != p {
			known.Active, known.PendingAt, known.Tries = false, now, 0
		}
		known.Push, known.UsedAt = p, now
		if label != "" {
			known.Label = label
		}
		if lang != "" {
			known.Lang = lang
		}
		return d, *known, false
	}
	s = Subscription{ID: newID, Label: label, Lang: lang, CreatedAt: now, UsedAt: now, PendingAt: now, Push: p}
	for len(d.List) >= limit {
		oldest := slices.MinFunc(d.List, func(a, b Subscription) int { return a.UsedAt.Compare(b.UsedAt) })
		d, _ = d.Remove(oldest.ID)
	}
	d.List = append(d.List, s)
	return d, s, true
}

// Activate takes the code that was pushed to the subscription; right tells
// whether it was the one. The last wrong try removes the subscription.
func (d Devices) Activate(id string, right bool, now time.Time) (Devices, error) {
	d.List = slices.Clone(d.List)
	i := d.index(id)
	if i < 0 {
		return d, ErrNotFound
	}
	s := &d.List[i]
	switch {
	case right:
		s.Active, s.PendingAt, s.Tries, s.UsedAt = true, time.Time{}, 0, now
		return d, nil
	case s.Active:
		return d, errWrongCode
	}
	if s.Tries++; s.Tries >= activationTries {
		d, _ = d.Remove(id)
	}
	return d, errWrongCode
}

var errWrongCode = refuse(CodeWrongCode, "This is not the code that was pushed to the device. After five wrong ones subscribe again.")

// Remove forgets a subscription and tells whether it was there.
func (d Devices) Remove(id string) (Devices, bool) {
	i := d.index(id)
	if i < 0 {
		return d, false
	}
	d.List = slices.Delete(slices.Clone(d.List), i, i+1)
	return d, true
}
