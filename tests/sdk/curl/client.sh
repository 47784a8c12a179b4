#!/usr/bin/env bash
# Uses a host through the node with nothing but an HTTP client, step by step; the first step that is not as expected ends
# it with an error.
set -euo pipefail

app=$1
node=http://127.0.0.1:$DAPR_HTTP_PORT/v1.0

# The body of an answer, which must be of status 2xx.
ask() { curl --silent --show-error --fail-with-body --max-time 30 --header 'content-type: application/json' "$@"; }
# Calls a method; the arguments are those of the method, a JSON list.
call() { ask --request PUT --data "${3:-}" "$node/actors/Hobbit/$1/method/$2"; }
# How often the host has noted an event.
count() { ask "$node/invoke/$app/method/events" | tr ',' '\n' | grep -c "\"$1\"" || true; }

# Spaces in JSON are the host's own.
same() {
    if [ "${1// /}" != "${2// /}" ]; then
        echo "$3: $1 instead of $2"
        exit 1
    fi
    echo "ok: $3"
}

until_true() {
    local seconds=$1 what=$2 begun=$SECONDS
    shift 2
    until "$@"; do
        if [ $((SECONDS - begun)) -gt "$seconds" ]; then
            echo "not within $seconds s: $what"
            exit 1
        fi
        sleep 0.1
    done
    echo "ok: $what"
}
noted() { [ "$(count "$1")" -ge "$2" ]; }
forgotten() { [ "$(call frodo recall '["ring"]' | tr -d ' ')" = '{"value":null}' ]; }

greeting=$(ask --request POST --data '{"name":"sam"}' "$node/invoke/$app/method/greet?a=1")
same "$greeting" "{\"greeting\":\"hello sam\",\"caller\":\"$app\",\"query\":\"a=1\"}" "service invocation"

ants='{"dish":"ants","n":1}'
same "$(call frodo eat "[$ants]")" "{\"meals\":[$ants]}" "a method with a result"
same "$(call frodo eat '["cake"]')" "{\"meals\":[$ants,\"cake\"]}" "state from call to call"
same "$(call sam eaten)" '{"meals":null}' "state of another actor"
same "$(call frodo add '[20,22]')" '{"sum":42}' "a method with two arguments"

call frodo remember '["ring","here",2]' >/dev/null
call frodo remember '["shire","green",600]' >/dev/null
same "$(call frodo recall '["ring"]')" '{"value":"here"}' "state with TTL before its end"
until_true 10 "state with TTL ends" forgotten
same "$(call frodo recall '["shire"]')" '{"value":"green"}' "state with a longer TTL"
same "$(ask "$node/actors/Hobbit/frodo/state/shire")" '"green"' "state, read from outside"
call frodo forget '["shire"]' >/dev/null
same "$(call frodo recall '["shire"]')" '{"value":null}' "removed state"

call frodo startReminder >/dev/null
until_true 15 "two firings of a reminder" noted "reminder frodo second" 2
call frodo stopReminder >/dev/null
call frodo startTimer >/dev/null
until_true 15 "two ticks of a timer" noted "timer frodo tock" 2
call frodo stopTimer >/dev/null

status=$(curl --silent --output /dev/null --write-out '%{http_code}' --max-time 30 --request PUT "$node/actors/Hobbit/frodo/method/fail")
same "$status" 500 "an error in a method"

until_true 20 "an idle actor is deactivated" noted "deactivate frodo" 1
same "$(call frodo eaten)" "{\"meals\":[$ants,\"cake\"]}" "state after deactivation"
until_true 1 "the actor was activated again" noted "activate frodo" 2
echo "the client is content"
