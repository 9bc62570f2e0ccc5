package sinks

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
)

func benchRows(n int) []Row {
	rows := make([]Row, n)
	for i := range rows {
		rows[i] = Row{
			Trace: fmt.Sprintf("trace-%d", i), Object: "deals", Property: "partner_deal_key", Key: fmt.Sprintf("K-%d", i),
			Values: map[string]any{
				"dealname": "Acme Incorporated", "amount": decimal.New(123450, -2), "closedate": "2026-11-21",
				"dealstage": "qualifiedtobuy", "first_partner": "part_123", "email": "jane@acme.test", "phone": "+14155550100",
			},
		}
	}
	return rows
}

// stub is a target that takes every batch, with answers of the usual size.
func stub(b *testing.B, latency time.Duration) *httptest.Server {
	var answer strings.Builder
	answer.WriteString(`{"status":"COMPLETE","results":[`)
	for i := range 100 {
		if i > 0 {
			answer.WriteByte(',')
		}
		fmt.Fprintf(&answer, `{"id":"17100000%04d","properties":{"amount":"1234.5","closedate":"2026-11-21T00:00:00Z",`+
			`"createdate":"2026-11-21T10:00:00.000Z","dealname":"Acme Incorporated","dealstage":"qualifiedtobuy",`+
			`"hs_lastmodifieddate":"2026-11-21T10:00:00.000Z","hs_object_id":"17100000%04d","partner_deal_key":"K-%d"},`+
			`"createdAt":"2026-11-21T10:00:00.000Z","updatedAt":"2026-11-21T10:00:00.000Z","archived":false,"new":false,`+
			`"objectWriteTraceId":"trace-%d"}`, i, i, i, i)
	}
	answer.WriteString(`]}`)
	body := []byte(answer.String())
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		time.Sleep(latency)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	}))
	b.Cleanup(srv.Close)
	return srv
}

func benchSink(b *testing.B, url string) *Sink {
	return newSink(b, "preset: hubspot\nbase_url: "+url+"\nauth: {token: abcdef}\nlimits: []\n", Options{})
}

// BenchmarkWrite is a batch of a hundred rows to a stub in the same process.
func BenchmarkWrite(b *testing.B) {
	s := benchSink(b, stub(b, 0).URL)
	rows := benchRows(100)
	b.ReportAllocs()
	for b.Loop() {
		if r := s.Write(context.Background(), Upsert, rows); r[99].Class != OK {
			b.Fatalf("%+v", r[99])
		}
	}
	b.ReportMetric(100*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkWriteParallel is the same at the preset's concurrency, with a latency of 50 ms.
func BenchmarkWriteParallel(b *testing.B) {
	s := benchSink(b, stub(b, 50*time.Millisecond).URL)
	rows := benchRows(100)
	b.SetParallelism(max(s.Concurrency()/2, 1))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if r := s.Write(context.Background(), Upsert, rows); r[99].Class != OK && r[99].Class != Throttled {
				b.Errorf("%+v", r[99])
			}
		}
	})
	b.ReportMetric(100*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkRender(b *testing.B) {
	s := benchSink(b, "http://crm.example")
	rows := benchRows(100)
	units := make([]*unit, len(rows))
	for i := range rows {
		units[i] = &unit{row: &rows[i], at: i}
	}
	o := s.desc.operations[Upsert][0]
	b.ReportAllocs()
	for b.Loop() {
		if req, _ := s.desc.render(o, units); req == nil {
			b.Fatal("nothing rendered")
		}
	}
}

func BenchmarkGroup(b *testing.B) {
	s := benchSink(b, "http://crm.example")
	row := benchRows(1)[0]
	b.ReportAllocs()
	for b.Loop() {
		s.Group(row)
	}
}
