package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// Member is a process that reads studies, as others that share the Redis see it.
type Member struct {
	Worker  string `json:"worker"`
	Model   string `json:"model"`   // name of its bundle
	Version string `json:"version"` // of the bundle
	Digest  string `json:"digest"`  // of the bundle
}

// members has a hash of those that are alive: ARGV are verb, lease in ms, and of who asks: worker, its JSON. "join" enters it unless one is there with the same
// name and version of a bundle and another digest, and returns that; "stay" enters it in any case; "list" returns all. By the clock of Redis.
var members = redis.NewScript(`
local t = redis.call("TIME")
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local all = redis.call("HGETALL", KEYS[1])
local me, other, alive = nil, "", {}
if ARGV[4] then me = cjson.decode(ARGV[4]) end
for i = 1, #all, 2 do
	local cut = string.find(all[i + 1], " ")
	local seen, text = tonumber(string.sub(all[i + 1], 1, cut - 1)), string.sub(all[i + 1], cut + 1)
	if seen + ARGV[2] < now then
		redis.call("HDEL", KEYS[1], all[i])
	else
		alive[#alive + 1] = text
		if me and all[i] ~= ARGV[3] then
			local it = cjson.decode(text)
			if it.model == me.model and it.version == me.version and it.digest ~= me.digest then other = text end
		end
	end
end
if ARGV[1] == "list" then return alive end
if ARGV[1] == "stay" or other == "" then redis.call("HSET", KEYS[1], ARGV[3], string.format("%d", now) .. " " .. ARGV[4]) end
return other`)

func (c *Client) membersKey() []string { return []string{c.cfg.Prefix + "members"} }

// Join enters this process among those that read, for a lease; call it again, with joined, three times a lease. It returns the member that
// reads with another bundle under the same name and version, if there is one: then a process that has not joined does not.
func (c *Client) Join(ctx context.Context, m Member, joined bool) (other *Member, err error) {
	m.Worker = c.worker
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	verb := "join"
	if joined {
		verb = "stay"
	}
	text, err := members.Run(ctx, c.redis, c.membersKey(), verb, c.lease().Milliseconds(), c.worker, b).Text()
	if err != nil || text == "" {
		return nil, err
	}
	other = &Member{}
	return other, json.Unmarshal([]byte(text), other)
}

// Leave takes this process out.
func (c *Client) Leave(ctx context.Context) error {
	return c.redis.HDel(ctx, c.membersKey()[0], c.worker).Err()
}

// Members lists those that read, in no order.
func (c *Client) Members(ctx context.Context) (all []Member, err error) {
	texts, err := members.Run(ctx, c.redis, c.membersKey(), "list", c.lease().Milliseconds()).StringSlice()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	for _, t := range texts {
		var m Member
		if err := json.Unmarshal([]byte(t), &m); err != nil {
			return nil, fmt.Errorf("a worker in Redis is written otherwise than by this program: %w", err)
		}
		all = append(all, m)
	}
	return all, nil
}
