package sandbox

import (
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// problem is what is wrong with a request or with one row of it.
type problem struct {
	status      int
	category    string
	subCategory string
	message     string
	context     map[string][]string
	invalid     []invalidValue // property values; they make the message
}

// invalidValue is one refused property.
type invalidValue struct {
	name    string
	code    string
	message string
}

// errorBody is the body of a refused request.
type errorBody struct {
	Status        string              `json:"status"`
	Message       string              `json:"message"`
	CorrelationID string              `json:"correlationId"`
	Context       map[string][]string `json:"context,omitzero"`
	Errors        []errorDetail       `json:"errors,omitzero"`
	SubCategory   string              `json:"subCategory,omitzero"`
	Category      string              `json:"category,omitzero"`
}

type errorDetail struct {
	Message string              `json:"message"`
	Code    string              `json:"code"`
	Context map[string][]string `json:"context"`
}

// errorRow is one refused row of a multi-status reply.
type errorRow struct {
	Status      string              `json:"status"`
	Category    string              `json:"category"`
	SubCategory string              `json:"subCategory,omitzero"`
	Message     string              `json:"message"`
	Context     map[string][]string `json:"context,omitzero"`
}

// validation is a refusal with a message of its own.
func validation(format string, args ...any) *problem {
	return &problem{status: http.StatusBadRequest, category: "VALIDATION_ERROR", message: fmt.Sprintf(format, args...)}
}

func invalidValues(values []invalidValue) *problem {
	return &problem{status: http.StatusBadRequest, category: "VALIDATION_ERROR", invalid: values}
}

func unknownProperty(name string) invalidValue {
	return invalidValue{name: name, code: "PROPERTY_DOESNT_EXIST", message: fmt.Sprintf("Property %q does not exist", name)}
}

// fail answers a problem for the whole request.
func (h *hubspot) fail(c *call, p problem) reply {
	body := errorBody{
		Status: "error", Message: h.message(p), CorrelationID: correlationID(c), Context: p.context,
		SubCategory: p.subCategory, Category: p.category,
	}
	for _, v := range p.invalid {
		body.Errors = append(body.Errors, errorDetail{
			Message: v.message, Code: v.code, Context: map[string][]string{"propertyName": {v.name}},
		})
	}
	return h.succeed(p.status, body)
}

// row turns a problem into a row of a multi-status reply.
func (h *hubspot) row(p problem, trace string) errorRow {
	row := errorRow{Status: "error", Category: p.category, SubCategory: p.subCategory, Message: h.message(p)}
	row.Context = map[string][]string{}
	for name, values := range p.context {
		row.Context[name] = values
	}
	if trace != "" {
		row.Context["objectWriteTraceId"] = []string{trace}
	}
	return row
}

// message lists refused values as JSON inside the text, as HubSpot does.
func (h *hubspot) message(p problem) string {
	if len(p.invalid) == 0 {
		return p.message
	}
	type item struct {
		IsValid   bool   `json:"isValid"`
		Message   string `json:"message"`
		Error     string `json:"error"`
		Name      string `json:"name"`
		Localized string `json:"localizedErrorMessage"`
		PortalID  int64  `json:"portalId"`
	}
	var items []item
	for _, v := range p.invalid {
		items = append(items, item{Message: v.message, Error: v.code, Name: v.name, Localized: v.message, PortalID: h.server.account.Load()})
	}
	return "Property values were not valid: " + string(encode(items))
}

func (h *hubspot) missingScope(c *call, scope string) reply {
	type scopes struct {
		Required []string `json:"requiredGranularScopes"`
		Links    []string `json:"links"`
	}
	return h.succeed(http.StatusForbidden, struct {
		Status        string `json:"status"`
		Message       string `json:"message"`
		CorrelationID string `json:"correlationId"`
		Context       scopes `json:"context"`
		Category      string `json:"category"`
	}{
		"error", "One or more of the following scopes are required.", correlationID(c),
		scopes{[]string{scope}, []string{"https://developers.hubspot.com/scopes"}}, "MISSING_SCOPES",
	})
}

func (h *hubspot) succeed(status int, body any) reply {
	return reply{status: status, body: encode(body)}
}

// encode writes a value that this package made of strings and numbers, so it cannot fail.
func encode(v any) []byte {
	b, err := json.Marshal(v, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(fmt.Sprintf("sandbox: encode %T: %v", v, err))
	}
	return b
}

func correlationID(c *call) string { return fmt.Sprintf("00000000-0000-4000-8000-%012x", c.serial) }
