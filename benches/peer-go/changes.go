package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/thingspace-gateway/thingspace-gateway/benches/peer-go/gen/thingspace/gateway/v1"
)

const (
	insertChange = `INSERT OR IGNORE INTO changes
		(id, account, idempotency_key, service_plan, device_count, state)
		VALUES (?, ?, ?, ?, ?, 'SENT')`
	insertDevices = `INSERT INTO change_devices (change_id, devices) VALUES (?, ?)`
	acceptChange  = `UPDATE changes SET request_id = ?, state = 'ACCEPTED' WHERE id = ?`
	failChange    = `UPDATE changes SET state = 'UNKNOWN' WHERE id = ?`
)

// The statements of the writer.
var statements = []string{insertResult, countResult, insertChange, insertDevices, acceptChange, failChange}

// Gateway is the gRPC service.
type Gateway struct {
	pb.UnimplementedGatewayServiceServer
	store  *Store
	client *ThingSpace
}

// ChangeEsimPlan stores the change, sends it, and stores ThingSpace's response.
func (g *Gateway) ChangeEsimPlan(ctx context.Context, r *pb.ChangeEsimPlanRequest) (*pb.ChangeEsimPlanResponse, error) {
	if r.AccountName == "" || r.IdempotencyKey == "" || r.ServicePlan == "" || len(r.Devices) == 0 {
		return nil, status.Error(codes.InvalidArgument, "account_name, idempotency_key, service_plan and devices are required")
	}
	devices := make([]Device, len(r.Devices))
	for i, d := range r.Devices {
		if len(d.Eid) != 32 || len(d.Iccid) < 19 || len(d.Iccid) > 20 {
			return nil, status.Errorf(codes.InvalidArgument, "devices[%d] is not an eSIM profile", i)
		}
		devices[i].DeviceIDs = []DeviceID{{ID: d.Eid, Kind: "eid"}, {ID: d.Iccid, Kind: "iccid"}}
	}
	encoded, err := json.Marshal(devices)
	if err != nil {
		return nil, err
	}
	id := uuid.Must(uuid.NewV7()).String()
	var isNew bool
	err = g.store.Write(func(b *Batch) error {
		result, err := b.Exec(insertChange, id, r.AccountName, r.IdempotencyKey, r.ServicePlan, len(devices))
		if err != nil {
			return err
		}
		rows, err := result.RowsAffected()
		if err != nil || rows == 0 {
			return err
		}
		isNew = true
		_, err = b.Exec(insertDevices, id, encoded)
		return err
	})
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	if !isNew {
		change, err := g.store.Change("account = ? AND idempotency_key = ?", r.AccountName, r.IdempotencyKey)
		return &pb.ChangeEsimPlanResponse{Change: change}, err
	}
	requestID, err := g.client.ChangePlan(ctx, r.AccountName, r.ServicePlan, encoded)
	if err != nil {
		g.store.Write(func(b *Batch) error {
			_, err := b.Exec(failChange, id)
			return err
		})
		return nil, status.Error(codes.Unknown, err.Error())
	}
	err = g.store.Write(func(b *Batch) error {
		_, err := b.Exec(acceptChange, requestID, id)
		return err
	})
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &pb.ChangeEsimPlanResponse{Change: &pb.Change{
		ChangeId:       id,
		RequestIds:     []string{requestID},
		IdempotencyKey: r.IdempotencyKey,
		ChangeType:     pb.ChangeType_CHANGE_TYPE_ESIM_PLAN,
		State:          pb.ChangeState_CHANGE_STATE_ACCEPTED,
		AccountName:    r.AccountName,
		ServicePlan:    r.ServicePlan,
		DeviceCount:    int32(len(devices)),
		PendingCount:   int32(len(devices)),
	}}, nil
}

var states = map[string]pb.ChangeState{
	"SENT":     pb.ChangeState_CHANGE_STATE_DISPATCHED,
	"ACCEPTED": pb.ChangeState_CHANGE_STATE_ACCEPTED,
	"FINISHED": pb.ChangeState_CHANGE_STATE_FINISHED,
	"UNKNOWN":  pb.ChangeState_CHANGE_STATE_OUTCOME_UNKNOWN,
}

// Change reads one change.
func (s *Store) Change(where string, args ...any) (*pb.Change, error) {
	change := &pb.Change{ChangeType: pb.ChangeType_CHANGE_TYPE_ESIM_PLAN}
	var requestID sql.NullString
	var state string
	row := s.read.QueryRow(`SELECT id, account, idempotency_key, service_plan, device_count, request_id, state, succeeded, failed
		FROM changes WHERE `+where, args...)
	err := row.Scan(&change.ChangeId, &change.AccountName, &change.IdempotencyKey, &change.ServicePlan,
		&change.DeviceCount, &requestID, &state, &change.SucceededCount, &change.FailedCount)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, status.Error(codes.NotFound, "no such change")
	}
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	if requestID.Valid {
		change.RequestIds = []string{requestID.String}
	}
	change.State = states[state]
	change.Done = state == "FINISHED"
	change.PendingCount = change.DeviceCount - change.SucceededCount - change.FailedCount
	return change, nil
}
