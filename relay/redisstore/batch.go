package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Group commit: scripts that are run while others are under way travel together,
// in one pipeline, as soon as those are back. A script that is alone goes at once.
// So a loaded node spends a fraction of the system calls, and Redis syncs its log
// once for all of them, while an idle one waits for nobody.

// maxBatches are under way to one master at once. One would let each script wait for
// a whole round trip of others; many would make batches of one.
const maxBatches = 4

// call is a script that is to run.
type call struct {
	script *redis.Script
	whole  bool // with its text, not by its hash
	keys   []string
	args   []any
	then   func(reply any, err error) // is called with what came of it, also if the caller is gone; runs no script itself

	done  chan struct{}
	value any
	err   error
}

// queue holds the calls to one master that wait for their turn.
type queue struct {
	mu      sync.Mutex
	waiting []*call
	busy    int // batches under way
}

// run runs a script, and waits for the replicas if asked to.
func (s *Store) run(ctx context.Context, script *redis.Script, keys []string, args ...any) (any, error) {
	return s.runThen(ctx, nothing, script, keys, args...)
}

func nothing(any, error) {}

// runThen calls then with each reply, or error, of the script.
func (s *Store) runThen(ctx context.Context, then func(reply any, err error), script *redis.Script, keys []string, args ...any) (any, error) {
	v, err := s.batched(ctx, call{script: script, keys: keys, args: args, then: then})
	if err == nil {
		return v, nil
	}
	cluster, ok := s.rdb.(*redis.ClusterClient)
	moved := ok && elsewhere(err)
	unknown := redis.HasErrorPrefix(err, "NOSCRIPT") // a pipeline cannot fall back by itself
	// What a batch could not do is done alone. The script may run twice by this, as
	// by the client's own repetitions.
	switch {
	case !moved && !unknown:
	case s.WaitReplicas == 0:
		v, err = script.Run(ctx, s.rdb, keys, args...).Result()
		then(v, err)
	case moved: // to visit the masters is what loads at once where they are
		if err = cluster.ForEachMaster(ctx, func(context.Context, *redis.Client) error { return nil }); err == nil {
			v, err = s.batched(ctx, call{script: script, whole: true, keys: keys, args: args, then: then})
		}
	default:
		v, err = s.batched(ctx, call{script: script, whole: true, keys: keys, args: args, then: then})
	}
	if err != nil {
		return nil, s.away(err)
	}
	return v, nil
}

// batched runs a call: at once if its master is not busy, else with those that wait
// for it. When ctx ends first the call may run all the same.
func (s *Store) batched(ctx context.Context, c call) (any, error) {
	master, name, err := s.master(ctx, c.keys[0])
	if err != nil {
		c.then(nil, err)
		return nil, err
	}
	got, _ := s.queues.LoadOrStore(name, &queue{})
	q := got.(*queue)
	q.mu.Lock()
	if q.busy < maxBatches {
		q.busy++
		q.mu.Unlock()
		s.exec(ctx, master, []*call{&c})
		s.next(q, master)
		return c.value, c.err
	}
	c.done = make(chan struct{})
	q.waiting = append(q.waiting, &c)
	q.mu.Unlock()
	select {
	case <-c.done:
		return c.value, c.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// next sends what has come to wait, without the caller, who has an answer to give.
func (s *Store) next(q *queue, master redis.UniversalClient) {
	batch := q.take()
	if batch == nil {
		return
	}
	go func() {
		for ; batch != nil; batch = q.take() {
			// Each caller has a time limit of its own.
			s.exec(context.Background(), master, batch)
			for _, c := range batch {
				close(c.done)
			}
		}
	}()
}

// take returns the calls that wait, or nil: then there is a batch less under way.
func (q *queue) take() []*call {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch := q.waiting
	q.waiting = nil
	if len(batch) == 0 {
		q.busy--
	}
	return batch
}

// master is the client to send a key's commands to, and its name. On a cluster that
// is the node that holds the key: one that does not answer holds up its own alone,
// and a pipeline of the whole cluster would send WAIT, which names no key, anywhere.
func (s *Store) master(ctx context.Context, key string) (redis.UniversalClient, string, error) {
	cluster, ok := s.rdb.(*redis.ClusterClient)
	if !ok {
		return s.rdb, "", nil
	}
	m, err := cluster.MasterForKey(ctx, key)
	if err != nil {
		return nil, "", err
	}
	return m, m.Options().Addr, nil
}

// replicaWait bounds WAIT, so that the ingress still answers in time.
const replicaWait = time.Second

// errReplicas says that the write is done, but not where it must be.
var errReplicas = errors.New("too few of redis.wait_replicas have the write")

// exec sends calls, and sets what came of each.
func (s *Store) exec(ctx context.Context, master redis.UniversalClient, calls []*call) {
	s.send(ctx, master, calls)
	for _, c := range calls {
		c.then(c.value, c.err)
	}
}

// evalSHA is as Script.EvalSha, without an allocation for each key.
func (c *call) evalSHA(ctx context.Context) *redis.Cmd {
	words := append(make([]any, 0, 3+len(c.keys)+len(c.args)), "evalsha", c.script.Hash(), len(c.keys))
	for i := range c.keys {
		words = append(words, &c.keys[i])
	}
	return redis.NewCmd(ctx, append(words, c.args...)...)
}

// send sends calls in one pipeline. WAIT is about all that the master had written
// before, so that who asks again, and is told what an earlier call wrote, waits for
// that as well.
func (s *Store) send(ctx context.Context, master redis.UniversalClient, calls []*call) {
	if c := calls[0]; len(calls) == 1 && s.WaitReplicas == 0 {
		c.value, c.err = c.script.Run(ctx, s.rdb, c.keys, c.args...).Result()
		return
	}
	pipe := master.Pipeline()
	cmds := make([]*redis.Cmd, len(calls))
	for i, c := range calls {
		if c.whole {
			cmds[i] = c.script.Eval(ctx, pipe, c.keys, c.args...)
			continue
		}
		cmds[i] = c.evalSHA(ctx)
		_ = pipe.Process(ctx, cmds[i]) // only adds it
	}
	var replicas *redis.Cmd
	if s.WaitReplicas > 0 {
		replicas = pipe.Do(ctx, "WAIT", s.WaitReplicas, replicaWait.Milliseconds())
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	var short error
	if replicas != nil {
		if n, err := replicas.Int(); err != nil {
			short = err
		} else if n < s.WaitReplicas {
			short = fmt.Errorf("%w: %d of %d", errReplicas, n, s.WaitReplicas)
		}
	}
	for i, c := range calls {
		c.value, c.err = cmds[i].Result()
		c.err = cmp.Or(c.err, short)
	}
}

// elsewhere tells whether another node may be the master by now: this one says
// so, or does not answer.
func elsewhere(err error) bool {
	var answer redis.Error
	switch {
	case err == nil, errors.Is(err, errReplicas):
		return false
	case errors.As(err, &answer):
		return redis.HasErrorPrefix(err, "MOVED") || redis.HasErrorPrefix(err, "READONLY") || redis.HasErrorPrefix(err, "UNBLOCKED")
	}
	return true
}
