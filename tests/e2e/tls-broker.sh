# One of three nodes, each broker and controller, that clients and the other two reach as kafka-NODE.example:9092, over TLS
# alone. Its data go with its pod.
set -euo pipefail
: "${NODE:?}"
java() {
    command java "-Xmx$1" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData \
        -Dlog4j2.configurationFile=/etc/kafka/log4j2.properties -cp '/opt/kafka/*' "${@:2}"
}
cat >/tmp/server.properties <<END
process.roles=broker,controller
node.id=$NODE
controller.quorum.voters=1@kafka-1.example:9093,2@kafka-2.example:9093,3@kafka-3.example:9093
controller.listener.names=CONTROLLER
listeners=SSL://0.0.0.0:9092,CONTROLLER://0.0.0.0:9093
advertised.listeners=SSL://kafka-$NODE.example:9092
listener.security.protocol.map=SSL:SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=SSL
ssl.keystore.type=PEM
ssl.keystore.location=/srv/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=/srv/ca.pem
log.dirs=/data/kafka
auto.create.topics.enable=false
offsets.topic.num.partitions=3
transaction.state.log.num.partitions=1
END
java 128m kafka.tools.StorageTool format --cluster-id U3RlcHdlbGxzT3duQnJva2Vycw --config /tmp/server.properties
java 256m kafka.Kafka /tmp/server.properties
