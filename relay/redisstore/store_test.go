package redisstore

import (
	"testing"

	"approvalrelay/relay/storetest"
)

func TestConformance(t *testing.T) {
	for name, url := range backends(t) {
		t.Run(name, func(t *testing.T) { storetest.Run(t, on(url)) })
	}
}
