package tracing_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/tracing"
)

// BenchmarkReceived is what the receipt of one event costs, and its part of a commit of ten.
func BenchmarkReceived(b *testing.B) {
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	b.Cleanup(collector.Close)
	plain, traced := http.Header{"Content-Type": {"application/json"}}, header([]string{parent}, "a=1")
	for _, bb := range []struct {
		name     string
		endpoint string
		sample   float64
		header   http.Header
	}{
		{"off", "", 0, plain},
		{"off, with a sender's trace", "", 0, traced},
		{"a tenth", collector.URL, 0.1, plain},
		{"all", collector.URL, 1, plain},
	} {
		b.Run(bb.name, func(b *testing.B) {
			t, err := tracing.New(tracing.Options{Endpoint: bb.endpoint, Sample: bb.sample})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				t.Shutdown(ctx)
			})
			ids := make([]uuid.UUID, 1024)
			for i := range ids {
				ids[i] = uuid.Must(uuid.NewV7())
			}
			began := time.Now()
			commit := t.Commit(began)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				id := ids[i%len(ids)]
				kept := tracing.Kept(bb.header)
				commit.Add(id, t.Keep(id, kept))
				if i%10 == 9 {
					commit.End(nil)
					commit = t.Commit(began)
				}
				t.Received(&tracing.Receipt{Event: id, Stored: id, Kept: kept, Source: "shop", Type: "deal.created", Result: "stored", Status: 202, Began: began})
			}
		})
	}
}
