package receiver

import (
	"encoding/json"
	"io"
	"strings"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/receiver/sources"
)

// Reopen reads what could not be read when it came, by the present config. It reports
// whether that can be done now.
func Reopen(routing Routing, kept *ledger.Kept) (events []ledger.Incoming, ok bool) {
	source := routing.Sources[kept.Source]
	if source == nil || source.Capture {
		return nil, false
	}
	headers := map[string]string{}
	if kept.Headers != nil && json.Unmarshal(kept.Headers, &headers) != nil {
		return nil, false
	}
	named, ok := headers[eventHeader]
	if !ok && kept.Type != sources.Unknown {
		named = kept.Type
	}
	body, err := sources.Inflate(kept.Body, []string{headers["content-encoding"]}, func(from io.Reader) ([]byte, error) {
		all, err := io.ReadAll(io.LimitReader(from, source.MaxBody+1))
		if int64(len(all)) > source.MaxBody {
			return nil, errTooLarge
		}
		return all, err
	})
	if err != nil {
		return nil, false
	}
	read, err := source.Read(named, body, headers["content-type"])
	if err != nil || read.Events[0].Malformed != nil || read.Events[0].Empty {
		return nil, false
	}
	delivery := headers[strings.ToLower(source.DeliveryID)]
	delete(headers, eventHeader)
	var left []byte
	if len(headers) > 0 {
		if left, err = json.Marshal(headers); err != nil {
			return nil, false
		}
	}
	for i := range read.Events {
		e := &read.Events[i]
		event := ledger.Incoming{
			ID: kept.ID, ReceivedAt: kept.ReceivedAt, Headers: left, Trace: kept.Trace, VerifiedBy: kept.VerifiedBy, Body: e.Text, Again: true,
		}
		if i > 0 {
			event.ID = uuid.Must(uuid.NewV7())
		}
		if delivery != "" {
			event.Delivery = ledger.DeliveryOf(source.Name, delivery, i)
		}
		var sinks []string
		if e.Known {
			sinks = routing.Sinks(source.Name, e.Type)
		}
		describe(&event, source, e, sinks)
		events = append(events, event)
	}
	return events, true
}
