// The conformance program. tests/python/test_conformance.py runs it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"

	gateway "github.com/thingspace-gateway/thingspace-gateway/clients/go"
	"github.com/thingspace-gateway/thingspace-gateway/clients/go/gatewayv1"
)

type arguments struct {
	Target         string  `json:"target"`
	Do             string  `json:"do"`
	CAFile         string  `json:"ca_file"`
	CertFile       string  `json:"cert_file"`
	KeyFile        string  `json:"key_file"`
	TokenFile      string  `json:"token_file"`
	Keepalive      float64 `json:"keepalive"`
	IdleTimeout    float64 `json:"idle_timeout"`
	AttemptTimeout float64 `json:"attempt_timeout"`
	TotalTimeout   float64 `json:"total_timeout"`

	Account      string `json:"account"`
	Key          string `json:"key"`
	Plan         string `json:"plan"`
	First        int    `json:"first"`
	Devices      int    `json:"devices"`
	ValidateOnly bool   `json:"validate_only"`

	ChangeID    string `json:"change_id"`
	ResumeToken string `json:"resume_token"`
	Until       string `json:"until"`
	PauseAt     int    `json:"pause_at"`
	PauseFile   string `json:"pause_file"`
	PageSize    int32  `json:"page_size"`
}

type object map[string]any

func main() {
	var args arguments
	if err := json.Unmarshal([]byte(os.Args[1]), &args); err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, args); errors.Is(err, context.Canceled) {
		log.Print(err)
		show(object{"end": "cancelled"})
	} else if err != nil {
		log.Print(err)
		show(object{"error": describe(err)})
	}
}

func run(ctx context.Context, args arguments) error {
	config := gateway.Config{
		Target:         args.Target,
		Plaintext:      args.CAFile == "",
		CAFile:         args.CAFile,
		CertFile:       args.CertFile,
		KeyFile:        args.KeyFile,
		Keepalive:      seconds(args.Keepalive),
		IdleTimeout:    seconds(args.IdleTimeout),
		AttemptTimeout: seconds(args.AttemptTimeout),
		TotalTimeout:   seconds(args.TotalTimeout),
		OnRetry: func(failed gateway.FailedAttempt) {
			line := object{"code": codeName(failed.Err), "reason": orNull(failed.Err.ReasonText)}
			if args.Do == "change" {
				line["attempt"] = failed.Number
				show(line)
			} else {
				line["resume_token"] = failed.ResumeToken
				show(object{"retry": line})
			}
		},
	}
	if args.TokenFile != "" {
		config.TokenFunc = func(context.Context) (string, error) {
			token, err := os.ReadFile(args.TokenFile)
			return strings.TrimSpace(string(token)), err
		}
	}
	client, err := gateway.New(config)
	if err != nil {
		return err
	}
	defer client.Close()
	switch args.Do {
	case "change":
		return change(ctx, client, args)
	case "watch":
		return watch(ctx, args, client.Watch(ctx, &gatewayv1.WatchRequestRequest{
			ChangeId:       args.ChangeID,
			AccountName:    args.Account,
			IdempotencyKey: args.Key,
			ResumeToken:    args.ResumeToken,
			Until:          until(args),
		}))
	case "watch_account":
		return watch(ctx, args, client.WatchAccount(ctx, &gatewayv1.WatchAccountRequest{
			AccountName: args.Account,
			ResumeToken: args.ResumeToken,
			Until:       until(args),
		}))
	case "list":
		return list(ctx, client, args)
	}
	return fmt.Errorf("cannot do %q", args.Do)
}

func change(ctx context.Context, client *gateway.Client, args arguments) error {
	request := &gatewayv1.ChangeEsimPlanRequest{
		AccountName:    args.Account,
		IdempotencyKey: args.Key,
		ServicePlan:    args.Plan,
		ValidateOnly:   args.ValidateOnly,
	}
	for i := args.First; i < args.First+args.Devices; i++ {
		request.Devices = append(request.Devices, &gatewayv1.EsimDevice{
			Eid:             fmt.Sprintf("99%030d", i),
			Iccid:           fmt.Sprintf("9994%016d", i),
			ClientReference: fmt.Sprintf("row-%d", i),
		})
	}
	response, err := client.ChangeEsimPlan(ctx, request)
	if err != nil {
		return err
	}
	change := response.GetChange()
	show(object{
		"change_id":    change.GetChangeId(),
		"state":        name(change.GetState(), "CHANGE_STATE_"),
		"device_count": change.GetDeviceCount(),
	})
	return nil
}

// event is an event of either watch.
type event interface {
	GetResumeToken() string
	GetOpened() *gatewayv1.Opened
	GetDeviceResult() *gatewayv1.DeviceResult
	GetStateChanged() *gatewayv1.StateChanged
	GetBookmark() *gatewayv1.Bookmark
}

func watch[E event](ctx context.Context, args arguments, events iter.Seq2[E, error]) error {
	results := 0
	for event, err := range events {
		if err != nil {
			return err
		}
		line := object{"event": "unknown", "resume_token": event.GetResumeToken()}
		finished, _ := any(event).(interface{ GetFinished() *gatewayv1.Finished })
		switch {
		case event.GetOpened() != nil:
			line["event"] = "opened"
			addChange(line, event.GetOpened().GetChange())
		case event.GetDeviceResult() != nil:
			results++
			result := event.GetDeviceResult()
			line["event"] = "device_result"
			line["row"] = result.GetClientReference()
			line["outcome"] = name(result.GetOutcome(), "OUTCOME_")
			line["change_id"] = result.GetChangeId()
		case event.GetStateChanged() != nil:
			line["event"] = "state_changed"
			addChange(line, event.GetStateChanged().GetChange())
		case event.GetBookmark() != nil:
			line["event"] = "bookmark"
		case finished != nil && finished.GetFinished() != nil:
			line["event"] = "finished"
			addChange(line, finished.GetFinished().GetChange())
		}
		show(line)
		if event.GetDeviceResult() != nil && results == args.PauseAt {
			waitFor(ctx, args.PauseFile)
		}
	}
	show(object{"end": "ok"})
	return nil
}

func addChange(line object, change *gatewayv1.Change) {
	if change != nil {
		line["change_id"] = change.GetChangeId()
		line["state"] = name(change.GetState(), "CHANGE_STATE_")
		line["succeeded"] = change.GetSucceededCount()
		line["failed"] = change.GetFailedCount()
	}
}

// waitFor waits until the file exists or the context ends.
func waitFor(ctx context.Context, file string) {
	for ctx.Err() == nil {
		if _, err := os.Stat(file); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func list(ctx context.Context, client *gateway.Client, args arguments) error {
	rows := []string{}
	request := &gatewayv1.ListDevicesRequest{ChangeId: args.ChangeID, PageSize: args.PageSize}
	for device, err := range client.ListDevices(ctx, request) {
		if err != nil {
			return err
		}
		rows = append(rows, device.GetClientReference())
	}
	show(object{"rows": rows})
	return nil
}

func describe(err error) object {
	var e *gateway.Error
	if !errors.As(err, &e) { // the client could not be made
		return object{
			"code": nil, "reason": nil, "retry": nil, "executed": nil, "outcome_unknown": false,
			"retry_after": nil, "field_violations": []object{}, "message": err.Error(),
		}
	}
	violations := []object{}
	for _, violation := range e.FieldViolations {
		violations = append(violations, object{
			"field": violation.Field, "reason": violation.ReasonText, "description": violation.Description,
		})
	}
	var retryAfter any
	if e.RetryAfter > 0 {
		retryAfter = e.RetryAfter.Seconds()
	}
	return object{
		"code":             codeName(e),
		"reason":           orNull(e.ReasonText),
		"retry":            name(e.Retry, "RETRY_"),
		"executed":         name(e.Executed, "EXECUTED_"),
		"outcome_unknown":  e.OutcomeUnknown,
		"retry_after":      retryAfter,
		"field_violations": violations,
		"message":          e.Message,
	}
}

func show(line object) {
	text, err := json.Marshal(line)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(text))
}

func codeName(e *gateway.Error) string { return code.Code(e.Code).String() }

// name returns the name of an enum value without its prefix, and nil for UNSPECIFIED.
func name(value fmt.Stringer, prefix string) any {
	text := strings.TrimPrefix(value.String(), prefix)
	if text == "UNSPECIFIED" {
		return nil
	}
	return text
}

func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}

func until(args arguments) gatewayv1.Until {
	return gatewayv1.Until(gatewayv1.Until_value["UNTIL_"+args.Until])
}

func seconds(number float64) time.Duration { return time.Duration(number * float64(time.Second)) }
