package relay

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"time"

	"approvalrelay/crypto"
	"approvalrelay/push"
)

// Claim is whose an endpoint is: the user who proved it last, and by which
// subscription. The store swaps it by its version, so that of two who prove the
// same endpoint at once one is told to look again.
type Claim struct {
	Version      int // of the stored record; 0 is not stored yet
	User         User
	Subscription string
}

// Pushes about a subscription itself, its activation and tests, are asked for by
// whoever is signed in, and go to whatever endpoint was named. So they are few:
// nobody can make the relay pester a device, or a push service.
const (
	noticeWindow       = 10 * time.Minute
	noticesPerEndpoint = 5 // over all users
	noticesPerUser     = 20
)

// NoticeLimits is how many such pushes there may be within a time.
type NoticeLimits struct {
	Window               time.Duration
	PerEndpoint, PerUser int
}

func endpointPrint(root crypto.Root, p push.Subscription) []byte {
	return root.Fingerprint([]byte("endpoint"), []byte(p.Endpoint))
}

// spendNotice refuses a push about a subscription beyond the limits.
func (s *Service) spendNotice(ctx context.Context, u User, p push.Subscription) error {
	root, err := s.rootKey(ctx)
	if err != nil {
		return err
	}
	wait, err := s.store.SpendNotice(ctx, endpointPrint(root, p), u, NoticeLimits{noticeWindow, noticesPerEndpoint, noticesPerUser})
	if err != nil {
		return fmt.Errorf("count the pushes about a subscription: %w", err)
	}
	if wait > 0 {
		return &Refusal{Code: CodeRateLimited, Detail: "Too many pushes about this device, or about your devices; the Retry-After header says when to come again.", After: wait}
	}
	return nil
}

// keepEndpoint lets the claim of a subscription that is in use live on.
func (s *Service) keepEndpoint(ctx context.Context, p push.Subscription) error {
	root, err := s.rootKey(ctx)
	if err != nil {
		return err
	}
	if err := s.store.KeepEndpoint(ctx, endpointPrint(root, p)); err != nil {
		return fmt.Errorf("keep whose the endpoint is: %w", err)
	}
	return nil
}

// activationCode is derived, not stored: it is bound to the subscription and
// its keys.
func activationCode(root crypto.Root, u User, sub Subscription) string {
	return root.Activation(u.Merchant, u.ID, sub.ID, sub.Push.Endpoint, sub.Push.P256dh, sub.Push.Auth)
}

func rightCode(root crypto.Root, u User, sub Subscription, code string) bool {
	return subtle.ConstantTimeCompare([]byte(activationCode(root, u, sub)), []byte(code)) == 1
}

// Activate proves that the endpoint is the caller's, by the code that was pushed
// to it. Whoever had the endpoint before loses it: a browser that another user now
// signs in with must not show the former one's payments. That comes first, then
// the claim, then the subscription: whatever fails between, nobody shares the
// endpoint, and the same code again completes it.
func (s *Service) Activate(ctx context.Context, u User, id, code string) error {
	root, err := s.rootKey(ctx)
	if err != nil {
		return err
	}
	d, err := s.store.Devices(ctx, u)
	if err != nil {
		return fmt.Errorf("read the user's devices: %w", err)
	}
	sub, ok := d.Live(s.store.Now()).Find(id)
	proved := ok && rightCode(root, u, sub, code)
	if proved {
		if err := s.takeEndpoint(ctx, root, u, sub); err != nil {
			return err
		}
	}
	// The code is compared again with what is swapped: the keys may have changed.
	err = s.changeDevices(ctx, u, func(d Devices, now time.Time) (Devices, []Delivery, error) {
		sub, _ := d.Find(id)
		d, err := d.Activate(id, rightCode(root, u, sub, code), now)
		return d, nil, err
	})
	if proved && errors.Is(err, ErrNotFound) { // it went meanwhile, and its release may have come before the claim
		return errors.Join(err, s.releaseEndpoint(ctx, endpointPrint(root, sub.Push), u, id))
	}
	return err
}

// takeEndpoint makes an endpoint the user's. A subscription's id is never given out
// twice, and each one has to be claimed before it is active: so a claim that has
// not changed since its owner lost the endpoint means that they have not got it
// back either.
func (s *Service) takeEndpoint(ctx context.Context, root crypto.Root, u User, sub Subscription) error {
	fingerprint := endpointPrint(root, sub.Push)
	return again("the endpoint was claimed", func() error {
		claim, err := s.store.Endpoint(ctx, fingerprint)
		if err != nil {
			return fmt.Errorf("read whose the endpoint is: %w", err)
		}
		if former := claim.User; former != u && former.ID != "" {
			if err := s.loseEndpoint(ctx, former, sub.Push.Endpoint); err != nil {
				return err
			}
		}
		if err := s.store.ClaimEndpoint(ctx, fingerprint, Claim{Version: claim.Version, User: u, Subscription: sub.ID}); err != nil {
			return fmt.Errorf("claim the endpoint: %w", err)
		}
		return nil
	})
}

// loseEndpoint removes an endpoint from the user who had it.
func (s *Service) loseEndpoint(ctx context.Context, former User, endpoint string) error {
	err := s.changeDevices(ctx, former, func(d Devices, _ time.Time) (Devices, []Delivery, error) {
		i := slices.IndexFunc(d.List, func(o Subscription) bool { return o.Push.Endpoint == endpoint })
		if i < 0 {
			return d, nil, ErrNotFound
		}
		d, _ = d.Remove(d.List[i].ID)
		return d, nil, nil
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// releases are owed for the subscriptions that a change removes, whoever caused
// it: a claim says in clear whose an endpoint is, and must not outlast it.
func (s *Service) releases(ctx context.Context, u User, before, after Devices) (owe []Delivery, err error) {
	for _, sub := range before.List {
		if _, stays := after.Find(sub.ID); stays {
			continue
		}
		root, err := s.rootKey(ctx)
		if err != nil {
			return nil, err
		}
		owe = append(owe, Delivery{Kind: KindRelease, Merchant: u.Merchant, UserID: u.ID, Target: sub.ID, Endpoint: endpointPrint(root, sub.Push)})
	}
	return owe, nil
}

// release gives up the claim of a subscription that is gone.
func (w *Worker) release(ctx context.Context, lease Lease) error {
	d := lease.Delivery
	if err := w.svc.releaseEndpoint(ctx, d.Endpoint, User{Merchant: d.Merchant, ID: d.UserID}, d.Target); err != nil {
		return err
	}
	return w.settle(ctx, lease, d, Step{})
}

// releaseEndpoint gives up a claim, unless another subscription has made one since.
func (s *Service) releaseEndpoint(ctx context.Context, fingerprint []byte, u User, sub string) error {
	return again("the endpoint was claimed", func() error {
		claim, err := s.store.Endpoint(ctx, fingerprint)
		if err != nil {
			return fmt.Errorf("read whose the endpoint is: %w", err)
		}
		if claim.User != u || claim.Subscription != sub {
			return nil
		}
		if err := s.store.ClaimEndpoint(ctx, fingerprint, Claim{Version: claim.Version}); err != nil {
			return fmt.Errorf("release the endpoint: %w", err)
		}
		return nil
	})
}
